"""What the panel can do: bring Stripe up to date, and send its customer to Stripe's portal."""

from urllib.parse import urlsplit

import pytest

from billing.usage import CustomerId
from tests.resolvers.conftest import SOMEBODY_ELSE, SUPPORT, Desk, panel_of
from tests.support.stripe_sandbox import StripeSandbox

SYNC = """mutation ($id: ID!) { syncBilling(input: {customerId: $id}) {
  coalesced sync { id status trigger } errors { code message path } } }"""
PORTAL = """mutation ($id: ID!, $url: String!, $flow: PortalFlow) {
  createPortalSession(input: {customerId: $id, returnUrl: $url, flow: $flow}) {
    url sync { status trigger } errors { code message path } } }"""
BACK = "https://fly.example/billing"


async def test_a_second_request_joins_the_sync_that_waits(desk: Desk) -> None:
    """Impatient clicks are one sync."""
    customer = await desk.shop.customer()
    await desk.use(customer)

    first = (await desk.ask(panel_of(customer), SYNC, id=customer))["syncBilling"]
    second = (await desk.ask(SUPPORT, SYNC, id=customer))["syncBilling"]

    assert (first["coalesced"], second["coalesced"]) == (False, True)
    assert first["sync"] == second["sync"]
    assert (first["sync"]["status"], first["sync"]["trigger"]) == ("QUEUED", "ON_DEMAND")


async def test_a_sync_that_was_asked_for_ends(desk: Desk) -> None:
    """The id that the mutation gave is the one to follow."""
    customer = await desk.shop.customer()
    await desk.use(customer)
    asked = (await desk.ask(panel_of(customer), SYNC, id=customer))["syncBilling"]["sync"]

    await desk.flush(customer)

    query = "query ($id: ID!) { sync(id: $id) { status linesAdded stripeCalls deltas startedAt finishedAt failure { code } } }"
    shown = (await desk.ask(panel_of(customer), query, id=asked["id"]))["sync"]
    assert (shown["status"], shown["linesAdded"], shown["deltas"]) == ("SUCCEEDED", 1, 1)
    assert shown["startedAt"] <= shown["finishedAt"]


@pytest.mark.parametrize("mutation", [SYNC, PORTAL])
async def test_nobody_touches_a_foreign_customer(desk: Desk, mutation: str) -> None:
    """The refusal is the same for a customer that exists and for one that does not."""
    customer = await desk.shop.customer()

    def refusal(data: dict[str, dict[str, object]], who: str) -> str:
        [payload] = data.values()
        return str(payload["errors"]).replace(who, "cus_X")

    foreign = await desk.ask(SOMEBODY_ELSE, mutation, id=customer, url=BACK)
    absent = await desk.ask(SOMEBODY_ELSE, mutation, id="cus_absent", url=BACK)

    assert refusal(foreign, customer) == refusal(absent, "cus_absent")
    assert "NOT_FOUND" in refusal(foreign, customer)


async def test_a_held_customer_is_not_synced(desk: Desk) -> None:
    """Support stopped it; whoever asks learns that, and not why."""
    customer = await desk.shop.customer()
    await desk.services.ledger.hold(CustomerId(customer), "fraud?", "agent")

    refused = (await desk.ask(panel_of(customer), SYNC, id=customer))["syncBilling"]

    assert (refused["sync"], refused["errors"][0]["code"]) == (None, "ON_HOLD")
    assert "fraud" not in refused["errors"][0]["message"]


async def test_the_portal_opens_on_an_up_to_date_bill(desk: Desk) -> None:
    """The customer sees at Stripe what the panel just showed."""
    customer = await desk.shop.customer()
    await desk.use(customer)

    async with desk.working():
        made = (await desk.ask(panel_of(customer), PORTAL, id=customer, url=BACK))[
            "createPortalSession"
        ]

    assert (made["sync"]["status"], made["sync"]["trigger"], made["errors"]) == (
        "SUCCEEDED",
        "PORTAL",
        [],
    )
    assert urlsplit(made["url"]).scheme in {"http", "https"}


async def test_the_portal_opens_at_once_when_there_is_nothing_to_tell(
    desk: Desk, sandbox: StripeSandbox
) -> None:
    """No worker runs here, and none is waited for; each click makes a link of its own."""
    customer = await desk.shop.customer()

    links = [
        (await desk.ask(panel_of(customer), PORTAL, id=customer, url=BACK, flow=flow))[
            "createPortalSession"
        ]
        for flow in (None, "PAYMENT_METHOD_UPDATE")
    ]

    assert len({each["url"] for each in links}) == 2
    assert [each["sync"] for each in links] == [None, None]
    assert await sandbox.calls("POST /v1/billing_portal/sessions") == 2


async def test_the_portal_opens_although_stripe_could_not_be_told_in_time(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A customer who wants to pay is not kept waiting; `sync` says what is still to come."""
    monkeypatch.setattr("resolvers.mutations.portal_session.PATIENCE", 0.3)
    customer = await desk.shop.customer()
    await desk.use(customer)

    made = (await desk.ask(panel_of(customer), PORTAL, id=customer, url=BACK))[
        "createPortalSession"
    ]

    assert (made["sync"]["status"], bool(made["url"])) == ("QUEUED", True)


ASTRAY = [
    "http://fly.example/",
    "javascript:alert(1)",
    "//fly.example",
    "https://",
    "https:///x",
    "",
    "https://user:word@fly.example/",
    "http://localhost.evil.example/",
    "https://fly.example/ x",
    "https://fly.example/\nx",
    "https://fly.example:99999/",
    "https://@fly.example/",
    "https://[",
    "data:text/html,x",
    "https://flÿ.example/",
]
HOME = ["http://localhost:3000/billing", "http://127.0.0.1/", "http://[::1]:8000/"]


async def test_the_way_back_cannot_lead_astray(desk: Desk) -> None:
    """Stripe's page would send a customer wherever this points; only a developer's own machine may do without TLS."""
    customer = await desk.shop.customer()

    async def refusals(url: str) -> list[tuple[str, list[str]]]:
        made = await desk.ask(panel_of(customer), PORTAL, id=customer, url=url)
        return [(each["code"], each["path"]) for each in made["createPortalSession"]["errors"]]

    for url in ASTRAY:
        assert await refusals(url) == [("INVALID_INPUT", ["input", "returnUrl"])], url
    for url in HOME:
        assert await refusals(url) == [], url


async def test_a_portal_that_stripe_cannot_open_is_refused_in_words(
    desk: Desk, sandbox: StripeSandbox
) -> None:
    """The panel shows the message and offers to try again."""
    customer = await desk.shop.customer()
    await sandbox.fault("error_500_before", "POST /v1/billing_portal/sessions", times=50)

    refused = (await desk.ask(panel_of(customer), PORTAL, id=customer, url=BACK))[
        "createPortalSession"
    ]

    assert refused["url"] is None
    assert refused["errors"][0]["code"] == "STRIPE_UNAVAILABLE"


async def test_each_of_several_mutations_sees_what_the_one_before_has_done(desk: Desk) -> None:
    """They run one after the other, and none goes by what an earlier one had read."""
    customer = await desk.shop.customer()
    document = """mutation ($id: ID!) {
      first: syncBilling(input: {customerId: $id}) { errors { code } }
      holdBilling(input: {customerId: $id, reason: "disputed"}) { errors { code } }
      then: syncBilling(input: {customerId: $id}) { errors { code } } }"""

    done = await desk.ask(SUPPORT, document, id=customer)

    assert done["first"]["errors"] == done["holdBilling"]["errors"] == []
    assert done["then"]["errors"] == [{"code": "ON_HOLD"}]
