"""The state file: everything acknowledged survives the process."""

from pathlib import Path

import httpx

from sandbox.admin import Sandbox
from sandbox.settings import Settings
from tests.support.stripe_sandbox import StripeSandbox, start_sandbox

CALM = ("--no-limits", "--no-latency")


def api_client(sandbox: StripeSandbox) -> httpx.Client:
    """Return a client with a test key."""
    headers = {"authorization": "Bearer sk_test_1"}
    return httpx.Client(base_url=sandbox.url, headers=headers, trust_env=False)


def test_everything_acknowledged_survives_sigkill(tmp_path: Path) -> None:
    """Objects, keys, lines, events and the clock; a torn last write is ignored, new ids differ."""
    state, key = tmp_path / "stripe.state", {"idempotency-key": "k"}
    with start_sandbox("--state", str(state), *CALM) as sandbox, api_client(sandbox) as http:
        customer = http.post("/v1/customers", data={"name": "A"}, headers=key).json()
        invoice = http.post("/v1/invoices", data={"customer": customer["id"]}).json()["id"]
        line = {"lines[0][amount]": "5", "lines[0][description]": "kept"}
        before = http.post(f"/v1/invoices/{invoice}/add_lines", data=line).json()
        httpx.post(f"{sandbox.url}/_sandbox/clock", json={"advance": 3600}, trust_env=False)
        events = http.get("/v1/events").json()
        sandbox.kill()
    with state.open("ab") as journal:
        journal.write(b'[["customers","cus_torn",{"id":"cus')
    sandbox = StripeSandbox.start("--state", str(state), *CALM)
    with api_client(sandbox) as http:
        again = http.post("/v1/customers", data={"name": "A"}, headers=key)
        assert (again.json(), again.headers["idempotent-replayed"]) == (customer, "true")
        assert http.get(f"/v1/invoices/{invoice}").json() == before
        assert http.get("/v1/events").json() == events
        clock = httpx.get(f"{sandbox.url}/_sandbox/clock", trust_env=False).json()
        assert clock["offset"] == 3600
        assert http.post("/v1/customers").json()["id"] != customer["id"]
        assert http.delete(f"/v1/invoices/{invoice}").status_code == 200
    assert sandbox.stop() == 0
    account = Sandbox(Settings(), state).account
    assert invoice not in account.rows["invoices"]
    assert len(account.rows["customers"]) == 2


def test_same_seed_gives_same_ids() -> None:
    """A failing run can be repeated."""
    made = [Sandbox(Settings(), seed=seed).account.new_id("cus_") for seed in (3, 3, 4)]

    assert made[0] == made[1] != made[2]


def test_seed_file_is_loaded_once(tmp_path: Path) -> None:
    """Ids are the file's; a restart adds nothing."""
    seeds, state = tmp_path / "seeds.json", tmp_path / "stripe.state"
    seeds.write_text(
        '{"products": [{"id": "prod_a", "name": "A"}],'
        '"prices": [{"id": "price_a", "product": "prod_a", "currency": "usd", "lookup_key": "a",'
        '            "unit_amount_decimal": "0.5"}],'
        '"customers": [{"id": "cus_acme", "name": "Acme", "metadata": {"org": "1"}}],'
        '"invoices": [{"id": "in_acme", "customer": "cus_acme"}]}'
    )
    for _ in range(2):
        sandbox = Sandbox(Settings(), state)
        sandbox.load_seed(seeds)
        listed = {"customer": "cus_acme"}
        shown = sandbox.perform("GET /v1/invoices", listed)["data"]
        assert [invoice["id"] for invoice in shown] == ["in_acme"]
        shown = sandbox.perform("GET /v1/prices", {"lookup_keys": ["a"]})["data"]
        assert [(price["id"], price["product"]) for price in shown] == [("price_a", "prod_a")]
