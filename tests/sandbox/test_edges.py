"""Who may enter, what is said to those who may not, and what a person sees."""

import ast
import sys
from pathlib import Path

import httpx
import pytest

from sandbox.faults import ON_REQUEST, ON_WEBHOOK
from tests.support.stripe_sandbox import StripeSandbox


@pytest.mark.parametrize("key", ["sk_live_abc", "rk_live_abc"])
async def test_a_live_key_is_refused(sandbox: StripeSandbox, key: str) -> None:
    """Real money never touches a double."""
    async with httpx.AsyncClient(base_url=sandbox.url, trust_env=False) as http:
        answer = await http.post("/v1/customers", headers={"authorization": f"Bearer {key}"})

    assert answer.status_code == 401
    assert "live" in answer.json()["error"]["message"]
    assert key not in answer.text


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer nonsense"}, {"authorization": "Basic eDo="}]
)
async def test_no_key_no_answer(sandbox: StripeSandbox, headers: dict[str, str]) -> None:
    """As Stripe: 401."""
    async with httpx.AsyncClient(base_url=sandbox.url, trust_env=False) as http:
        assert (await http.get("/v1/customers", headers=headers)).status_code == 401


async def test_a_key_may_come_as_basic_auth(sandbox: StripeSandbox) -> None:
    """As curl -u sends it."""
    async with httpx.AsyncClient(base_url=sandbox.url, trust_env=False) as http:
        answer = await http.get("/v1/customers", auth=("sk_test_1", ""))

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "data", "status", "code"),
    [
        ("GET", "/v1/cutomers", None, 404, None),
        ("PUT", "/v1/customers", None, 404, None),
        ("GET", "/v1/customers/cus_none", None, 404, "resource_missing"),
        ("POST", "/v1/invoices", {"customer": "cus_none"}, 400, "resource_missing"),
        ("POST", "/v1/invoices", {}, 400, "parameter_missing"),
        ("POST", "/v1/customers", {"nmae": "A"}, 400, "parameter_unknown"),
        ("POST", "/v1/customers", {"address[town]": "A"}, 400, "parameter_unknown"),
        ("POST", "/v1/customers", {"balance": "1.5"}, 400, "parameter_invalid_integer"),
        ("POST", "/v1/subscriptions", {}, 501, "not_simulated"),
        ("POST", "/v1/customers", {"test_clock": "clock_1"}, 501, "not_simulated"),
        ("GET", "/v1/customers/cus_1/tax_ids", None, 501, "not_simulated"),
    ],
)
async def test_what_cannot_be_is_said(
    http: httpx.AsyncClient,
    method: str,
    path: str,
    data: dict[str, str] | None,
    status: int,
    code: str | None,
) -> None:
    """Stripe's own errors for mistakes, a 501 for what we do not simulate, silence never."""
    answer = await http.request(method, path, data=data)

    assert answer.status_code == status
    assert answer.json()["error"].get("code") == code


async def test_another_api_version_is_not_answered_in_the_wrong_shape(
    http: httpx.AsyncClient,
) -> None:
    """A client pinned elsewhere learns it at once."""
    answer = await http.get("/v1/customers", headers={"stripe-version": "2024-06-20"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "not_simulated")


async def test_a_bill_can_be_followed_to_its_end_by_hand(http: httpx.AsyncClient) -> None:
    """The portal leads to the bill, the bill has a button, the button pays; nothing is injected."""
    evil = "<script>alert(1)</script>"
    customer = (await http.post("/v1/customers", data={"name": evil})).json()["id"]
    invoice = (await http.post("/v1/invoices", data={"customer": customer})).json()["id"]
    lines = {"lines[0][amount]": "123456", "lines[0][description]": evil}
    await http.post(f"/v1/invoices/{invoice}/add_lines", data=lines)
    bill = (await http.post(f"/v1/invoices/{invoice}/finalize")).json()
    session = (await http.post("/v1/billing_portal/sessions", data={"customer": customer})).json()

    portal = (await http.get(session["url"])).text
    assert bill["number"] in portal
    assert f"/i/{invoice}" in portal
    page = (await http.get(bill["hosted_invoice_url"])).text
    assert "USD 1,234.56" in page
    assert "<button>Pay" in page
    assert evil not in page + portal
    paid = await http.post(f"/i/{invoice}/pay", follow_redirects=True)
    assert "<button>" not in paid.text
    assert (await http.get(f"/v1/invoices/{invoice}")).json()["status"] == "paid"


async def test_the_portal_can_be_opened_at_the_payment_method(http: httpx.AsyncClient) -> None:
    """The flow that was asked for is in the answer; one that is not simulated says so."""
    customer = (await http.post("/v1/customers")).json()["id"]
    data = {"customer": customer, "flow_data[type]": "payment_method_update"}
    session = (await http.post("/v1/billing_portal/sessions", data=data)).json()
    bad = await http.post(
        "/v1/billing_portal/sessions", data=data | {"flow_data[type]": "subscription_cancel"}
    )

    assert session["flow"]["after_completion"]["type"] == "portal_homepage"
    assert bad.status_code == 501


async def test_a_portal_link_is_short_lived(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """It is a bearer link: five minutes."""
    customer = (await http.post("/v1/customers")).json()["id"]
    session = (await http.post("/v1/billing_portal/sessions", data={"customer": customer})).json()
    assert (await http.get(session["url"])).status_code == 200
    await sandbox.advance(301)
    assert (await http.get(session["url"])).status_code == 404


async def test_the_front_page_says_what_this_is_and_is_not(sandbox: StripeSandbox) -> None:
    """Nobody should mistake the double for Stripe."""
    async with httpx.AsyncClient(base_url=sandbox.url, trust_env=False) as http:
        page = (await http.get("/")).text

    for word in (
        "not Stripe",
        "Not simulated",
        "Guesses",
        "half away from zero",
        "answer_lost_after",
    ):
        assert word in page


def test_the_manual_lists_every_guess_and_every_fault() -> None:
    """A guess that nobody can read is a claim."""
    manual = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()

    assert [kind for kind in {**ON_REQUEST, **ON_WEBHOOK} if f"| `{kind}` |" not in manual] == []


def test_the_double_stands_on_its_own() -> None:
    """It imports nothing of the gateway, so that neither can lean on the other's mistakes."""
    allowed = {
        "sandbox",
        "starlette",
        "uvicorn",
        "orjson",
        "httpx",
        "stripe",
    } | sys.stdlib_module_names
    imported = set()
    for path in (Path(__file__).parents[2] / "sandbox").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).partition(".")[0])
            elif isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}

    assert imported - allowed == set()
