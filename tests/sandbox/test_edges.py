"""Authentication, error responses, the HTML pages and the sandbox's imports."""

import ast
import sys
from pathlib import Path

import httpx
import pytest

from sandbox.faults import REQUEST_FAULTS, WEBHOOK_FAULTS
from tests.support.stripe_sandbox import StripeSandbox


@pytest.mark.parametrize("key", ["sk_live_abc", "rk_live_abc"])
async def test_live_key_is_rejected(sandbox: StripeSandbox, key: str) -> None:
    """Real money never reaches a double."""
    async with httpx.AsyncClient(base_url=sandbox.url, trust_env=False) as http:
        answer = await http.post("/v1/customers", headers={"authorization": f"Bearer {key}"})

    assert answer.status_code == 401
    assert "live" in answer.json()["error"]["message"]
    assert key not in answer.text


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer nonsense"}, {"authorization": "Basic eDo="}]
)
async def test_missing_or_invalid_key_is_rejected(
    sandbox: StripeSandbox, headers: dict[str, str]
) -> None:
    """401, as at Stripe."""
    async with httpx.AsyncClient(base_url=sandbox.url, trust_env=False) as http:
        assert (await http.get("/v1/customers", headers=headers)).status_code == 401


async def test_key_is_accepted_as_basic_auth(sandbox: StripeSandbox) -> None:
    """Curl -u sends it so."""
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
        ("POST", "/v1/customers", {"source": "tok_1"}, 501, "not_simulated"),
        ("GET", "/v1/customers/cus_1/tax_ids", None, 501, "not_simulated"),
    ],
)
async def test_invalid_requests_get_stripe_errors(
    http: httpx.AsyncClient,
    method: str,
    path: str,
    data: dict[str, str] | None,
    status: int,
    code: str | None,
) -> None:
    """Stripe's own errors for mistakes, a 501 for what is not simulated."""
    answer = await http.request(method, path, data=data)

    assert answer.status_code == status
    assert answer.json()["error"].get("code") == code


async def test_other_api_version_is_rejected(
    http: httpx.AsyncClient,
) -> None:
    """A client pinned to another version notices it at once."""
    answer = await http.get("/v1/customers", headers={"stripe-version": "2024-06-20"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "not_simulated")


async def test_pages_lead_from_portal_to_paid_invoice(http: httpx.AsyncClient) -> None:
    """The portal links the invoice, its button pays it, and no HTML is injected."""
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


async def test_portal_session_keeps_simulated_flow(http: httpx.AsyncClient) -> None:
    """The flow is in the response; a flow that is not simulated is a 501."""
    customer = (await http.post("/v1/customers")).json()["id"]
    data = {"customer": customer, "flow_data[type]": "payment_method_update"}
    session = (await http.post("/v1/billing_portal/sessions", data=data)).json()
    bad = await http.post(
        "/v1/billing_portal/sessions", data=data | {"flow_data[type]": "subscription_cancel"}
    )

    assert session["flow"]["after_completion"]["type"] == "portal_homepage"
    assert bad.status_code == 501


async def test_portal_link_expires_after_five_minutes(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """It is a bearer link."""
    customer = (await http.post("/v1/customers")).json()["id"]
    session = (await http.post("/v1/billing_portal/sessions", data={"customer": customer})).json()
    assert (await http.get(session["url"])).status_code == 200
    await sandbox.advance(301)
    assert (await http.get(session["url"])).status_code == 404


async def test_front_page_describes_the_sandbox(sandbox: StripeSandbox) -> None:
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


def test_manual_lists_every_fault() -> None:
    """docs/sandbox.md is complete."""
    manual = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()

    assert [
        kind for kind in {**REQUEST_FAULTS, **WEBHOOK_FAULTS} if f"| `{kind}` |" not in manual
    ] == []


def test_sandbox_imports_nothing_of_the_gateway() -> None:
    """Neither can depend on the other's mistakes."""
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
