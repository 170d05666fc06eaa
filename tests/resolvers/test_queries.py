"""What the panel and Support see, on a real ledger and the sandbox."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing.budget import Lane
from billing.events.effects import Notice
from billing.events.events import EventStatus
from billing.ledger import NewAdjustment
from billing.settings import Settings
from billing.usage import CustomerId, Period
from tests.resolvers.conftest import METERING, SOMEBODY_ELSE, SUPPORT, Desk, panel_of
from tests.support.stripe_sandbox import StripeSandbox

CUSTOMER = """query ($id: ID!) { customer(id: $id) {
  id organization name email currency delinquent creditBalance { amount currency formatted }
  defaultPaymentMethod { id brand last4 } paymentMethods { nodes { id } pageInfo { hasNextPage } }
  spendHistory { month } freshness { source fetchedAt }
  syncState { status lastSyncedAt pendingDeltas oldestPendingAt nextSyncAt lastSync { id status deltas invoice { id } customer { id } } } } }"""
PERIOD = """query ($id: ID!) { customer(id: $id) { currentPeriod {
  start end state asOf invoice { id status }
  inStripe { amount } claimed { amount } pending { amount } total { amount formatted }
  sku: usage { ...Row } app: usage(by: APP) { ...Row } region: usage(by: REGION) { ...Row } org: usage(by: ORGANIZATION) { ...Row } } } }
fragment Row on UsageBreakdown { key description quantity unit amount { amount } }"""
INVOICES = """query ($id: ID!, $first: Int, $after: String, $last: Int, $before: String, $status: InvoiceStatus) {
  customer(id: $id) { invoices(first: $first, after: $after, last: $last, before: $before, status: $status) {
    nodes { id number status periodStart periodEnd total { amount } customer { id } freshness { source }
      lines { nodes { id sku quantity unitAmount amount { amount } periodStart periodEnd } } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } } }"""


async def test_a_customer_is_shown_whole(desk: Desk) -> None:
    """One query is the panel's whole page."""
    customer = await desk.shop.customer("acme")
    card = await desk.card(customer)
    await desk.use(customer, "1000000")
    await desk.flush(customer)
    await desk.use(customer, "2000000")

    shown = (await desk.ask(panel_of(customer), CUSTOMER, id=customer))["customer"]

    assert (shown["organization"], shown["email"]) == ("acme", "billing@acme.example")
    assert shown["defaultPaymentMethod"] == {"id": card, "brand": "visa", "last4": "4242"}
    assert shown["paymentMethods"]["nodes"] == [{"id": card}]
    assert shown["creditBalance"]["formatted"] == "USD 0.00"
    state = shown["syncState"]
    assert (state["status"], state["pendingDeltas"]) == ("PENDING", 1)
    assert state["lastSyncedAt"] <= state["oldestPendingAt"] < state["nextSyncAt"]
    assert (state["lastSync"]["status"], state["lastSync"]["deltas"]) == ("SUCCEEDED", 1)
    assert state["lastSync"]["customer"] == {"id": customer}
    assert state["lastSync"]["invoice"]["id"].startswith("in_")


async def test_a_balance_in_the_customers_favour_is_positive(desk: Desk) -> None:
    """Stripe counts what a customer owes; a customer asks what it has left."""
    created = await desk.services.stripe.write(
        "/v1/customers", {"balance": -1250}, key="credit", lane=desk.lane
    )
    customer = created.body["id"]

    shown = (await desk.ask(panel_of(customer), CUSTOMER, id=customer))["customer"]

    assert shown["creditBalance"]["amount"] == "12.5"


async def test_the_three_numbers_add_up(desk: Desk) -> None:
    """What Stripe has, what is on its way and what is still to be told are the whole month."""
    customer = await desk.shop.customer()
    await desk.use(customer, "1000000")
    await desk.flush(customer)
    await desk.use(customer, "500000")

    period = (await desk.ask(panel_of(customer), PERIOD, id=customer))["customer"]["currentPeriod"]

    amounts = {
        name: Decimal(period[name]["amount"])
        for name in ("inStripe", "claimed", "pending", "total")
    }
    assert amounts == {
        "inStripe": Decimal(31),
        "claimed": Decimal(0),
        "pending": Decimal("15.5"),
        "total": Decimal("46.5"),
    }
    assert (period["state"], period["invoice"]["status"]) == ("OPEN", "DRAFT")
    assert period["start"] <= period["asOf"] < period["end"]


async def test_usage_is_broken_down_by_whatever_it_was_reported_with(desk: Desk) -> None:
    """A high line is explained by the app, the region or the organization behind it."""
    customer = await desk.shop.customer()
    await desk.use(customer, "1000000", app="web", region="fra", organization="acme-eu")
    await desk.use(customer, "2000000", app="worker", region="fra")
    await desk.use(customer, "3", sku="egress-gb")

    period = (await desk.ask(panel_of(customer), PERIOD, id=customer))["customer"]["currentPeriod"]

    def rows(by: str) -> list[tuple[str, str]]:
        return [(row["key"], row["amount"]["amount"]) for row in period[by]]

    assert rows("sku") == [("machine-seconds", "93"), ("egress-gb", "0.06")]
    assert rows("app") == [("worker", "62"), ("web", "31"), ("", "0.06")]
    assert rows("region") == [("fra", "93"), ("", "0.06")]
    assert rows("org") == [("", "62.06"), ("acme-eu", "31")]
    assert period["sku"][0]["description"] == "machine seconds"


async def test_a_single_line_is_broken_down(desk: Desk) -> None:
    """Why is this line so high: its own usage, and what Support took off it."""
    customer = await desk.shop.customer()
    await desk.use(customer, "1000000", app="web")
    await desk.use(customer, "2000000", app="worker")
    await desk.use(customer, "3", sku="egress-gb", app="mail")
    price = (await desk.services.catalogue.by_sku(["machine-seconds"]))["machine-seconds"]
    asked = (CustomerId(customer), "machine-seconds", Decimal(-500000), "outage", "ann", "k1")
    made = await desk.services.ledger.adjust(NewAdjustment(*asked), price)
    query = """query ($id: ID!, $sku: String) { customer(id: $id) { currentPeriod {
      sku: usage(sku: $sku) { key amount { amount } } app: usage(by: APP, sku: $sku) { key amount { amount } } } } }"""

    async def rows(sku: str | None) -> dict[str, list[tuple[str, str]]]:
        shown = await desk.ask(panel_of(customer), query, id=customer, sku=sku)
        period = shown["customer"]["currentPeriod"]
        return {
            by: [(row["key"], row["amount"]["amount"]) for row in found]
            for by, found in period.items()
        }

    assert await rows("machine-seconds") == {
        "sku": [("machine-seconds", "93"), (made.line, "-15.5")],
        "app": [("worker", "62"), ("web", "31"), ("", "-15.5")],
    }
    assert await rows("unheard-of") == {"sku": [], "app": []}
    assert await rows(None) == await rows("")
    assert len((await rows(None))["app"]) == 4


async def test_a_month_that_has_ended_is_shown_until_the_ledger_forgets_it(desk: Desk) -> None:
    """The bill that a customer has just received can be explained, and what it lacks is seen before."""
    customer = CustomerId(await desk.shop.customer())
    last_month = Period.containing(datetime.now(UTC)).previous()
    late = (last_month.end - timedelta(minutes=1)).isoformat()
    await desk.use(customer, "1000000", occurred_at=late, app="web")
    await desk.flush(customer, last_month)
    await desk.use(customer, "500000", occurred_at=late, app="web")
    foreign = await desk.invoice(customer, 900)
    invoice = (await desk.services.ledger.peek(customer, last_month)).invoice
    assert invoice is not None
    numbers = "state pending { amount } total { amount } usage(by: APP) { key amount { amount } }"
    query = f"""query ($id: ID!, $month: String!, $invoice: ID!, $foreign: ID!) {{
      customer(id: $id) {{ period(month: $month) {{ {numbers} invoice {{ id }} }} long: period(month: "2020-01") {{ state }} }}
      invoice(id: $invoice) {{ usagePeriod {{ {numbers} }} }} foreign: invoice(id: $foreign) {{ usagePeriod {{ state }} }} }}"""
    ids = {"id": customer, "month": str(last_month), "invoice": invoice, "foreign": foreign}

    states = []
    for step in (None, desk.services.ledger.close, desk.flush):
        if step is not None:
            await step(customer, last_month)
        shown = await desk.ask(panel_of(customer), query, **ids)
        period = shown["customer"]["period"]
        assert period.pop("invoice") == {"id": invoice}
        assert shown["invoice"]["usagePeriod"] == period
        assert period["usage"] == [{"key": "web", "amount": {"amount": "46.5"}}]
        states.append((period["state"], period["pending"]["amount"], period["total"]["amount"]))
        assert (shown["customer"]["long"], shown["foreign"]["usagePeriod"]) == (None, None)

    assert states == [
        ("OPEN", "15.5", "46.5"),
        ("CLOSING", "15.5", "46.5"),
        ("CLOSED", "0", "46.5"),
    ]
    somebody = await desk.ask(SOMEBODY_ELSE, query, **ids)
    assert somebody == {"customer": None, "invoice": None, "foreign": None}
    assert await desk.refused(panel_of(customer), query, **{**ids, "month": "October"}) == [
        "BAD_USER_INPUT"
    ]


async def test_the_current_month_is_a_month_like_any_other(desk: Desk) -> None:
    """Also before anything was used; one that has not begun is none."""
    customer = await desk.shop.customer()
    now = Period.containing(datetime.now(UTC))
    query = """query ($id: ID!, $now: String!, $next: String!) { customer(id: $id) {
      period(month: $now) { state total { formatted } } next: period(month: $next) { state } } }"""

    shown = await desk.ask(
        panel_of(customer), query, id=customer, now=str(now), next=str(now.next())
    )

    empty = {"state": "OPEN", "total": {"formatted": "USD 0.00"}}
    assert shown["customer"] == {"period": empty, "next": None}


async def test_a_customer_without_usage_has_an_empty_month(desk: Desk) -> None:
    """A new customer's panel shows zeros and not an error."""
    customer = await desk.shop.customer()

    period = (await desk.ask(panel_of(customer), PERIOD, id=customer))["customer"]["currentPeriod"]

    assert period["total"] == {"amount": "0", "formatted": "USD 0.00"}
    assert (period["sku"], period["invoice"]) == ([], None)


async def test_invoices_come_with_their_lines(desk: Desk) -> None:
    """The draft shows what it bills, with the month that it is for."""
    customer = await desk.shop.customer()
    await desk.use(customer, "1000000")
    await desk.flush(customer)

    shown = (await desk.ask(panel_of(customer), INVOICES, id=customer))["customer"]["invoices"]

    [invoice] = shown["nodes"]
    assert (invoice["status"], invoice["number"]) == ("DRAFT", None)
    assert invoice["customer"] == {"id": customer}
    month = f"{datetime.now(UTC):%Y-%m}"
    assert invoice["periodStart"].startswith(f"{month}-01T00:00:00")
    [line] = invoice["lines"]["nodes"]
    assert (line["sku"], line["quantity"], line["unitAmount"]) == (
        "machine-seconds",
        "1000000",
        "0.0031",
    )
    assert line["amount"] == {"amount": "31"} == invoice["total"]


async def test_invoices_are_paged_and_filtered(desk: Desk) -> None:
    """A cursor goes on after the invoice itself, newest first."""
    customer = await desk.shop.customer()
    made = [await desk.invoice(customer, 100) for _ in range(3)]
    await desk.finalize(made[0])
    viewer = panel_of(customer)

    async def page(**how: Any) -> Any:
        return (await desk.ask(viewer, INVOICES, id=customer, **how))["customer"]["invoices"]

    first = await page(first=2)
    rest = await page(first=2, after=first["pageInfo"]["endCursor"])
    back = await page(last=2, before=rest["pageInfo"]["startCursor"])
    none = await page(first=0)
    open_ones = await page(status="OPEN")

    assert [each["id"] for each in first["nodes"] + rest["nodes"]] == made[::-1]
    assert (first["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"]) == (True, False)
    assert rest["pageInfo"]["hasPreviousPage"]
    assert back["nodes"] == first["nodes"]
    assert (back["pageInfo"]["hasPreviousPage"], back["pageInfo"]["hasNextPage"]) == (False, True)
    assert none["nodes"] == []
    assert [each["id"] for each in open_ones["nodes"]] == [made[0]]


CARD = "defaultPaymentMethod { id }"


@pytest.mark.parametrize(
    "document",
    [
        "query ($id: ID!) { customer(id: $id) { name } }",
        f"query ($id: ID!) {{ customer(id: $id) {{ {CARD} }} }}",
        f"query ($id: ID!) {{ node(id: $id) {{ ...C }} }} fragment C on Customer {{ {CARD} }}",
        f"{{ customers {{ edges {{ node {{ {CARD} }} }} }} }}",
        f"{{ viewer {{ customers {{ nodes {{ {CARD} }} }} }} }}",
    ],
)
async def test_a_card_comes_along_with_its_customer(
    desk: Desk, sandbox: StripeSandbox, document: str
) -> None:
    """One read, also of many customers; none when it is asked again."""
    customers = [await desk.shop.customer(slug) for slug in ("acme", "other")]
    for customer in customers:
        await desk.card(customer)
    await sandbox.reset_counters()
    variables = {"id": customers[0]} if "$id" in document else {}

    shown = [await desk.ask(SUPPORT, document, **variables) for _ in range(2)]

    assert shown[0] == shown[1]
    assert (await sandbox.counters())["reads"] == 1


async def test_a_card_that_is_left_out_does_not_come_along(
    desk: Desk, sandbox: StripeSandbox
) -> None:
    """What `@include` takes out of the query is not asked of Stripe: showing it takes another read."""
    customer = await desk.shop.customer()
    await desk.card(customer)
    await sandbox.reset_counters()
    query = f"query ($id: ID!, $shown: Boolean!) {{ customer(id: $id) {{ name {CARD.replace('{', '@include(if: $shown) {')} }} }}"

    plain = (await desk.ask(SUPPORT, query, id=customer, shown=False))["customer"]
    whole = (await desk.ask(SUPPORT, query, id=customer, shown=True))["customer"]

    assert "defaultPaymentMethod" in {*whole} - {*plain}
    assert (await sandbox.counters())["reads"] == 2


async def test_spend_history_adds_up_finalized_invoices_by_month(desk: Desk) -> None:
    """Drafts and voided invoices are not what was billed."""
    customer = await desk.shop.customer()
    for amount in (1000, 250):
        await desk.finalize(await desk.invoice(customer, amount))
    await desk.invoice(customer, 99)

    query = "query ($id: ID!, $n: Int) { customer(id: $id) { spendHistory(months: $n) { month total { amount } invoices } } }"
    shown = await desk.ask(panel_of(customer), query, id=customer, n=3)

    month = f"{datetime.now(UTC):%Y-%m}"
    assert shown["customer"]["spendHistory"] == [
        {"month": month, "total": {"amount": "12.5"}, "invoices": 2}
    ]
    for beyond in (0, 61):
        assert await desk.refused(panel_of(customer), query, id=customer, n=beyond) == [
            "BAD_USER_INPUT"
        ]


async def test_a_viewer_sees_the_customers_of_its_token(desk: Desk) -> None:
    """The panel starts from the token alone; one that Stripe does not know is left out."""
    mine = sorted([await desk.shop.customer(f"org{n}") for n in range(3)])
    await desk.shop.customer("other")
    query = "query ($after: String) { viewer { role customers(first: 2, after: $after) { nodes { id } pageInfo { hasNextPage endCursor } } } }"
    viewer = panel_of(*mine, "cus_zzzAbsent")

    first = (await desk.ask(viewer, query))["viewer"]
    rest = (await desk.ask(viewer, query, after=first["customers"]["pageInfo"]["endCursor"]))[
        "viewer"
    ]

    assert first["role"] == "CUSTOMER"
    assert [each["id"] for each in first["customers"]["nodes"] + rest["customers"]["nodes"]] == mine
    assert first["customers"]["pageInfo"]["hasNextPage"]
    assert not rest["customers"]["pageInfo"]["hasNextPage"]


async def test_support_pages_through_all_customers(desk: Desk) -> None:
    """For Support the viewer's customers are everybody's."""
    made = [await desk.shop.customer(f"org{n}") for n in range(3)]

    shown = await desk.ask(
        SUPPORT,
        "{ viewer { customers(first: 2) { nodes { id } pageInfo { hasNextPage } } } customers { nodes { id } } }",
    )

    assert [each["id"] for each in shown["viewer"]["customers"]["nodes"]] == made[:0:-1]
    assert [each["id"] for each in shown["customers"]["nodes"]] == made[::-1]


EVERY_LIST = """
  query ($id: ID!, $mail: String!, $told: Boolean!) {
    customers(first: 0) { ...No } byMail: customers(first: 0, email: $mail) { ...No }
    byId: customers(first: 0, search: "CUSTOMER") { ...No } byName: customers(first: 0, search: "acm") { ...No }
    syncs(first: 0) { ...Sync } webhookEvents(first: 0) { ...Event } holds(first: 0) { ...Hold } viewer { customers(first: 0) { ...No } }
    customer(id: $id) { invoices(first: 0) { ...Invoice } paymentMethods(first: 0) { ...Card }
      adjustments(first: 0) { ...Adjustment } auditLog(first: 0) { ...Entry }
      drafts: invoices(first: 1) { nodes { lines(first: 0) { ...Line } } } } }"""
INFO = " { nodes { __typename } pageInfo @include(if: $told) { hasNextPage } }"
OF_WHAT = {
    "No": "Customer", "Sync": "Sync", "Event": "WebhookEvent", "Hold": "Hold", "Invoice": "Invoice", "Card": "PaymentMethod",
    "Adjustment": "Adjustment", "Entry": "AuditEntry", "Line": "InvoiceLine",
}  # fmt: skip


def pages_in(shown: Any) -> list[dict[str, Any]]:
    """Every page of a list that stands anywhere in *shown*, but for those that were asked for entries."""
    if isinstance(shown, list):
        return [page for each in shown for page in pages_in(each)]
    if not isinstance(shown, dict):
        return []
    if shown.get("nodes") == []:
        return [shown]
    return [page for each in shown.values() for page in pages_in(each)]


async def test_a_page_of_nothing_tells_whether_something_follows(
    desk: Desk, sandbox: StripeSandbox
) -> None:
    """In every list alike, as Relay says; Stripe is asked for it only when somebody asks us."""
    await sandbox.settings(search_lag=0)
    customer = await desk.shop.customer()
    await desk.card(customer)
    await desk.use(customer, "1000000")
    await desk.flush(customer)
    correct = """mutation ($id: ID!) { adjustUsage(input: {customerId: $id, sku: "egress-gb", quantity: "1",
      reason: "missed", idempotencyKey: "k"}) { errors { code } } }"""
    await desk.ask(SUPPORT, correct, id=customer)
    await desk.services.inbox.receive([Notice("evt_1", "customer.updated", customer)])
    await desk.services.ledger.hold(CustomerId(customer), "disputed", "ann")
    fragments = [f" fragment {name} on {of}Connection{INFO}" for name, of in OF_WHAT.items()]
    document = EVERY_LIST.replace("CUSTOMER", customer) + "".join(fragments)
    asked = {"id": customer, "mail": "billing@acme.example"}
    await desk.ask(
        SUPPORT,
        "query ($id: ID!) { customer(id: $id) { invoices(first: 1) { nodes { id } } } }",
        id=customer,
    )
    await sandbox.reset_counters()

    untold = await desk.ask(SUPPORT, document, **asked, told=False)
    reads = (await sandbox.counters())["reads"]
    told = await desk.ask(SUPPORT, document, **asked, told=True)

    assert reads == 0
    assert len(pages_in(untold)) == len(pages_in(told)) == 13
    assert [page["pageInfo"]["hasNextPage"] for page in pages_in(told)] == [True] * 13


SEARCH = "query ($text: String) { customers(search: $text) { nodes { id } } }"


async def test_support_finds_a_customer_by_what_it_has_at_hand(
    desk: Desk, sandbox: StripeSandbox
) -> None:
    """An address, an organization, a name or any id, whichever the customer wrote."""
    await sandbox.settings(search_lag=0)
    customer = await desk.shop.customer("umbrella")
    await desk.shop.customer("acme")
    invoice = await desk.invoice(customer, 100)

    for text in (customer, invoice, "billing@umbrella.example", " umbrella ", "Umbrel"):
        shown = await desk.ask(SUPPORT, SEARCH, text=text)
        assert shown == {"customers": {"nodes": [{"id": customer}]}}, text


async def test_a_customer_made_a_moment_ago_is_found(desk: Desk, sandbox: StripeSandbox) -> None:
    """Stripe's search is a minute behind; the person on the phone is not."""
    await sandbox.settings(search_lag=3600)
    customer = await desk.shop.customer("umbrella")

    for text in ("umbrella", "UMBR"):
        shown = await desk.ask(SUPPORT, SEARCH, text=text)
        assert shown == {"customers": {"nodes": [{"id": customer}]}}, text


@pytest.mark.parametrize(
    "text", ['"', "'\\", "cus_absent", "nobody@nowhere.example", '" OR name:"']
)
async def test_a_search_for_nothing_finds_nothing(desk: Desk, text: str) -> None:
    """What a person types never becomes part of Stripe's query language."""
    await desk.shop.customer()

    assert await desk.ask(SUPPORT, SEARCH, text=text) == {"customers": {"nodes": []}}


async def test_an_empty_search_lists_everybody(desk: Desk) -> None:
    """So that the question answers something before anything was typed."""
    customer = await desk.shop.customer()

    assert await desk.ask(SUPPORT, SEARCH, text=" ") == {"customers": {"nodes": [{"id": customer}]}}


async def test_support_sees_syncs_and_events(desk: Desk) -> None:
    """What failed, for whom, newest first."""
    one, other = [await desk.shop.customer(slug) for slug in ("acme", "other")]
    for each in (one, other):
        await desk.use(each)
        await desk.flush(each)
    await desk.services.inbox.receive([Notice("evt_1", "customer.updated", one, CustomerId(one))])
    await desk.services.inbox.receive([Notice("evt_2", "charge.pending", "ch_1")])

    query = """query ($c: ID, $s: SyncStatus, $w: WebhookEventStatus) {
      syncs(customerId: $c, status: $s) { nodes { customer { id } status } }
      webhookEvents(status: $w) { nodes { id type status attempts receivedAt objectId customerId } } }"""
    everything = await desk.ask(SUPPORT, query)
    some = await desk.ask(SUPPORT, query, c=one, s="SUCCEEDED", w="IGNORED")
    none = await desk.ask(SUPPORT, query, c="cus_absent", s="FAILED", w="FAILED")

    assert {each["customer"]["id"] for each in everything["syncs"]["nodes"]} == {one, other}
    assert [each["id"] for each in everything["webhookEvents"]["nodes"]] == ["evt_2", "evt_1"]
    assert [each["customer"]["id"] for each in some["syncs"]["nodes"]] == [one]
    assert [each["status"] for each in some["webhookEvents"]["nodes"]] == [EventStatus.IGNORED]
    assert none == {"syncs": {"nodes": []}, "webhookEvents": {"nodes": []}}


HOLDS = """query ($n: Int, $after: String) { holds(first: $n, after: $after) {
  nodes { customerId reason by since customer { id } } edges { cursor node { customerId } }
  pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""


async def test_support_sees_every_hold_that_stands(desk: Desk) -> None:
    """Whoever made it and whoever it is about, the oldest first, page by page."""
    made = [await desk.shop.customer(f"org{n}") for n in range(3)]
    hold = """mutation ($id: ID!) { holdBilling(input: {customerId: $id, reason: "disputed"}) { hold { since } } }"""
    since = (await desk.ask(SUPPORT, hold, id=made[0]))["holdBilling"]["hold"]["since"]
    await desk.services.ledger.hold_once(CustomerId(made[1]), "voided", "gateway", "in_1")
    await desk.ask(SUPPORT, hold, id=made[2])

    first = (await desk.ask(SUPPORT, HOLDS, n=2))["holds"]
    rest = (await desk.ask(SUPPORT, HOLDS, after=first["pageInfo"]["endCursor"]))["holds"]

    assert [each["customerId"] for each in first["nodes"] + rest["nodes"]] == made
    assert first["nodes"][0] == {
        "customerId": made[0],
        "reason": "disputed",
        "by": SUPPORT.subject,
        "since": since,
        "customer": {"id": made[0]},
    }
    assert [each["by"] for each in first["nodes"][1:]] == ["gateway"]
    assert [each["node"]["customerId"] for each in first["edges"]] == made[:2]
    assert first["edges"][-1]["cursor"] == first["pageInfo"]["endCursor"]
    assert (first["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"]) == (True, False)
    assert await desk.refused(SUPPORT, HOLDS, after="nonsense") == ["BAD_USER_INPUT"]
    assert await desk.refused(SUPPORT, HOLDS, n=101) == ["BAD_USER_INPUT"]


async def test_a_hold_outlives_its_customer_at_stripe(desk: Desk) -> None:
    """Nobody would ever release it if it hid for that."""
    await desk.services.ledger.hold(CustomerId("cus_Gone"), "disputed", "ann")

    [held] = (await desk.ask(SUPPORT, HOLDS))["holds"]["nodes"]

    assert (held["customerId"], held["customer"]) == ("cus_Gone", None)


async def test_nobody_but_support_sees_holds(desk: Desk) -> None:
    """Not even one's own: what Support thinks of a customer is not the customer's to read."""
    customer = await desk.shop.customer()
    await desk.services.ledger.hold(CustomerId(customer), "looks like fraud", "ann")

    for viewer in (panel_of(customer), METERING):
        result = await desk.run(viewer, HOLDS)
        assert (result.data, len(result.errors or ())) == (None, 1)
        assert "fraud" not in str(result.errors)
        assert await desk.refused(viewer, HOLDS) == ["FORBIDDEN"]


async def test_support_sees_what_is_left_of_the_allowance(desk: Desk) -> None:
    """When Stripe is slow to hear of things, this says why."""
    shown = await desk.ask(
        SUPPORT,
        """{ stripeBudget { lanes { lane waiting } endpoints { endpoint perSecond available throttled }
          limitedUntil reads readAllowance } }""",
    )

    assert shown["stripeBudget"]["lanes"][0]["lane"] == "customer"
    assert any(each["endpoint"] == "POST /v1/prices" for each in shown["stripeBudget"]["endpoints"])


async def test_support_sees_how_much_was_read_of_what_may_be(
    desk: Desk, settings: Settings
) -> None:
    """Stripe rations reads by the month, and nobody sees it coming otherwise."""
    ask = "{ stripeBudget { reads readAllowance } }"
    before = (await desk.ask(SUPPORT, ask))["stripeBudget"]

    await desk.services.stripe.read(
        f"/v1/customers/{await desk.shop.customer()}", lane=Lane.SUPPORT
    )

    after = (await desk.ask(SUPPORT, ask))["stripeBudget"]
    assert after["reads"] == before["reads"] + 1
    assert after["readAllowance"] == settings.stripe_read_allowance


async def test_a_number_says_how_old_it_is(desk: Desk) -> None:
    """What was kept is shown with the time at which Stripe said it."""
    customer = await desk.shop.customer()
    query = "query ($id: ID!) { customer(id: $id) { freshness { source fetchedAt } } }"
    viewer = panel_of(customer)
    first = (await desk.ask(viewer, query, id=customer))["customer"]["freshness"]
    again = (await desk.ask(viewer, query, id=customer))["customer"]["freshness"]

    assert (first["source"], again["source"]) == ("STRIPE", "CACHE")
    assert first["fetchedAt"] == again["fetchedAt"]
