"""What was acknowledged survives the process, whichever way it ends."""

from pathlib import Path

import httpx

from tests.support.stripe_sandbox import StripeSandbox, start_sandbox

CALM = ("--no-limits", "--no-latency")


def api(sandbox: StripeSandbox) -> httpx.Client:
    """Return a client with a test key."""
    headers = {"authorization": "Bearer sk_test_1"}
    return httpx.Client(base_url=sandbox.url, headers=headers, trust_env=False)


def test_everything_acknowledged_survives_sigkill(tmp_path: Path) -> None:
    """Objects, keys, lines, events and the clock; and the next ids are new ones."""
    state, key = str(tmp_path / "stripe.state"), {"idempotency-key": "k"}
    with start_sandbox("--state", state, *CALM) as sandbox, api(sandbox) as http:
        customer = http.post("/v1/customers", data={"name": "A"}, headers=key).json()
        invoice = http.post("/v1/invoices", data={"customer": customer["id"]}).json()["id"]
        line = {"lines[0][amount]": "5", "lines[0][description]": "kept"}
        before = http.post(f"/v1/invoices/{invoice}/add_lines", data=line).json()
        httpx.post(f"{sandbox.url}/_sandbox/clock", json={"advance": 3600}, trust_env=False)
        events = http.get("/v1/events").json()
        sandbox.kill()
    with start_sandbox("--state", state, *CALM) as sandbox, api(sandbox) as http:
        again = http.post("/v1/customers", data={"name": "A"}, headers=key)
        assert (again.json(), again.headers["idempotent-replayed"]) == (customer, "true")
        assert http.get(f"/v1/invoices/{invoice}").json() == before
        assert http.get("/v1/events").json() == events
        item = before["lines"]["data"][0]["parent"]["invoice_item_details"]["invoice_item"]
        assert http.get(f"/v1/invoiceitems/{item}").json()["amount"] == 5
        clock = httpx.get(f"{sandbox.url}/_sandbox/clock", trust_env=False).json()
        assert clock["offset"] == 3600
        assert http.post("/v1/customers").json()["id"] != customer["id"]
        gone = http.delete(f"/v1/invoices/{invoice}")
        assert gone.status_code == 200
    with start_sandbox("--state", state, *CALM) as sandbox, api(sandbox) as http:
        assert http.get(f"/v1/invoices/{invoice}").status_code == 404
        assert len(http.get("/v1/customers").json()["data"]) == 2


def test_a_torn_last_line_is_forgotten(tmp_path: Path) -> None:
    """A crash in the middle of a write costs that write only."""
    state = tmp_path / "stripe.state"
    with start_sandbox("--state", str(state), *CALM) as sandbox, api(sandbox) as http:
        http.post("/v1/customers")
    with state.open("ab") as journal:
        journal.write(b'[["customers","cus_torn",{"id":"cus')
    with start_sandbox("--state", str(state), *CALM) as sandbox, api(sandbox) as http:
        assert len(http.get("/v1/customers").json()["data"]) == 1


def test_the_same_seed_gives_the_same_ids() -> None:
    """A failing run can be run again."""
    ids = []
    for _ in range(2):
        with start_sandbox("--seed", "3", *CALM) as sandbox, api(sandbox) as http:
            ids.append(http.post("/v1/customers").json()["id"])

    assert ids[0] == ids[1]


def test_a_seed_file_fills_an_empty_account_once(tmp_path: Path) -> None:
    """Ids of one's own choice; a restart adds nothing."""
    seeds = tmp_path / "seeds.json"
    seeds.write_text(
        '{"products": [{"id": "prod_a", "name": "A"}],'
        '"prices": [{"id": "price_a", "product": "prod_a", "currency": "usd", "lookup_key": "a",'
        '            "unit_amount_decimal": "0.5"}],'
        '"customers": [{"id": "cus_acme", "name": "Acme", "metadata": {"org": "1"}}],'
        '"invoices": [{"id": "in_acme", "customer": "cus_acme"}]}'
    )
    state = str(tmp_path / "stripe.state")
    for _ in range(2):
        arguments = ("--state", state, "--seed-file", str(seeds), *CALM)
        with start_sandbox(*arguments) as sandbox, api(sandbox) as http:
            invoices = http.get("/v1/invoices", params={"customer": "cus_acme"}).json()["data"]
            assert [invoice["id"] for invoice in invoices] == ["in_acme"]
            price = http.get("/v1/prices", params={"lookup_keys[0]": "a"}).json()["data"][0]
            assert (price["id"], price["product"]) == ("price_a", "prod_a")


def test_a_termination_is_a_clean_exit() -> None:
    """Supervisors read exit codes."""
    sandbox = StripeSandbox.start(*CALM)

    assert sandbox.stop() == 0
