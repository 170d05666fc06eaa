"""Queries of the panel and of Support, on a real ledger and the sandbox."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing.budget import Lane
from billing.events.effects import EventRef
from billing.events.records import EventStatus
from billing.ledger import NewAdjustment
from billing.settings import Settings
from billing.usage import CustomerId, Period
from tests.resolvers.conftest import METERING, OTHER_CUSTOMER, SUPPORT, ApiHarness, panel_viewer
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


async def test_customer_page_in_one_query(api: ApiHarness) -> None:
    """One query returns everything that the panel shows."""
    customer = await api.shop.customer("acme")
    card = await api.attach_card(customer)
    await api.record_usage(customer, "1000000")
    await api.flush(customer)
    await api.record_usage(customer, "2000000")

    shown = (await api.query(panel_viewer(customer), CUSTOMER, id=customer))["customer"]

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


async def test_credit_balance_is_positive_when_fly_owes(api: ApiHarness) -> None:
    """Stripe's balance is negative for a credit; the API's is positive."""
    created = await api.services.stripe.write(
        "/v1/customers", {"balance": -1250}, key="credit", lane=api.lane
    )
    customer = created.body["id"]

    shown = (await api.query(panel_viewer(customer), CUSTOMER, id=customer))["customer"]

    assert shown["creditBalance"]["amount"] == "12.5"


async def test_period_amounts_add_up_to_total(api: ApiHarness) -> None:
    """`inStripe`, `claimed` and `pending` add up to the whole month."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "1000000")
    await api.flush(customer)
    await api.record_usage(customer, "500000")

    period = (await api.query(panel_viewer(customer), PERIOD, id=customer))["customer"][
        "currentPeriod"
    ]

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


async def test_usage_by_sku_app_region_and_organization(api: ApiHarness) -> None:
    """A high amount can be traced to its app, region or organization."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "1000000", app="web", region="fra", organization="acme-eu")
    await api.record_usage(customer, "2000000", app="worker", region="fra")
    await api.record_usage(customer, "3", sku="egress-gb")

    period = (await api.query(panel_viewer(customer), PERIOD, id=customer))["customer"][
        "currentPeriod"
    ]

    def rows(by: str) -> list[tuple[str, str]]:
        return [(row["key"], row["amount"]["amount"]) for row in period[by]]

    assert rows("sku") == [("machine-seconds", "93"), ("egress-gb", "0.06")]
    assert rows("app") == [("worker", "62"), ("web", "31"), ("", "0.06")]
    assert rows("region") == [("fra", "93"), ("", "0.06")]
    assert rows("org") == [("", "62.06"), ("acme-eu", "31")]
    assert period["sku"][0]["description"] == "machine seconds"


async def test_usage_is_filtered_by_sku(api: ApiHarness) -> None:
    """Usage of a single SKU by app, including its adjustments."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "1000000", app="web")
    await api.record_usage(customer, "2000000", app="worker")
    await api.record_usage(customer, "3", sku="egress-gb", app="mail")
    price = (await api.services.price_catalog.by_sku(["machine-seconds"]))["machine-seconds"]
    fields = (CustomerId(customer), "machine-seconds", Decimal(-500000), "outage", "ann", "k1")
    made = await api.services.ledger.adjustments.create(NewAdjustment(*fields), price)
    query = """query ($id: ID!, $sku: String) { customer(id: $id) { currentPeriod {
      sku: usage(sku: $sku) { key amount { amount } } app: usage(by: APP, sku: $sku) { key amount { amount } } } } }"""

    async def rows(sku: str | None) -> dict[str, list[tuple[str, str]]]:
        shown = await api.query(panel_viewer(customer), query, id=customer, sku=sku)
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


async def test_past_period_is_shown_until_the_ledger_drops_it(api: ApiHarness) -> None:
    """Usage of a past month is available while it is open, closing and closed."""
    customer = CustomerId(await api.shop.customer())
    last_month = Period.containing(datetime.now(UTC)).previous()
    late = (last_month.end - timedelta(minutes=1)).isoformat()
    await api.record_usage(customer, "1000000", occurred_at=late, app="web")
    await api.flush(customer, last_month)
    await api.record_usage(customer, "500000", occurred_at=late, app="web")
    foreign = await api.create_invoice(customer, 900)
    invoice = (await api.services.ledger.periods.snapshot(customer, last_month)).invoice
    assert invoice is not None
    numbers = "state pending { amount } total { amount } usage(by: APP) { key amount { amount } }"
    query = f"""query ($id: ID!, $month: String!, $invoice: ID!, $foreign: ID!) {{
      customer(id: $id) {{ period(month: $month) {{ {numbers} invoice {{ id }} }} long: period(month: "2020-01") {{ state }} }}
      invoice(id: $invoice) {{ usagePeriod {{ {numbers} }} }} foreign: invoice(id: $foreign) {{ usagePeriod {{ state }} }} }}"""
    ids = {"id": customer, "month": str(last_month), "invoice": invoice, "foreign": foreign}

    states = []
    for step in (None, api.services.ledger.periods.close, api.flush):
        if step is not None:
            await step(customer, last_month)
        shown = await api.query(panel_viewer(customer), query, **ids)
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
    somebody = await api.query(OTHER_CUSTOMER, query, **ids)
    assert somebody == {"customer": None, "invoice": None, "foreign": None}
    assert await api.error_codes(panel_viewer(customer), query, **{**ids, "month": "October"}) == [
        "BAD_USER_INPUT"
    ]


async def test_period_is_empty_for_the_current_and_null_for_a_future_month(api: ApiHarness) -> None:
    """The current month exists without usage; a future month is null."""
    customer = await api.shop.customer()
    now = Period.containing(datetime.now(UTC))
    query = """query ($id: ID!, $now: String!, $next: String!) { customer(id: $id) {
      period(month: $now) { state total { formatted } } next: period(month: $next) { state } } }"""

    shown = await api.query(
        panel_viewer(customer), query, id=customer, now=str(now), next=str(now.next())
    )

    empty = {"state": "OPEN", "total": {"formatted": "USD 0.00"}}
    assert shown["customer"] == {"period": empty, "next": None}


async def test_current_period_without_usage_is_zero(api: ApiHarness) -> None:
    """A new customer's panel shows zeros instead of an error."""
    customer = await api.shop.customer()

    period = (await api.query(panel_viewer(customer), PERIOD, id=customer))["customer"][
        "currentPeriod"
    ]

    assert period["total"] == {"amount": "0", "formatted": "USD 0.00"}
    assert (period["sku"], period["invoice"]) == ([], None)


async def test_invoices_with_lines(api: ApiHarness) -> None:
    """The draft has the lines and the month that it bills."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "1000000")
    await api.flush(customer)

    shown = (await api.query(panel_viewer(customer), INVOICES, id=customer))["customer"]["invoices"]

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


async def test_invoices_pagination_and_status_filter(api: ApiHarness) -> None:
    """Pages continue after the invoice at the cursor, newest first."""
    customer = await api.shop.customer()
    made = [await api.create_invoice(customer, 100) for _ in range(3)]
    await api.finalize_invoice(made[0])
    viewer = panel_viewer(customer)

    async def page(**how: Any) -> Any:
        return (await api.query(viewer, INVOICES, id=customer, **how))["customer"]["invoices"]

    first = await page(first=2)
    rest = await page(first=2, after=first["pageInfo"]["endCursor"])
    back = await page(last=2, before=rest["pageInfo"]["startCursor"])
    none = await page(first=0)
    open_ones = await page(status="OPEN")

    assert [node["id"] for node in first["nodes"] + rest["nodes"]] == made[::-1]
    assert (first["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"]) == (True, False)
    assert rest["pageInfo"]["hasPreviousPage"]
    assert back["nodes"] == first["nodes"]
    assert (back["pageInfo"]["hasPreviousPage"], back["pageInfo"]["hasNextPage"]) == (False, True)
    assert none["nodes"] == []
    assert [node["id"] for node in open_ones["nodes"]] == [made[0]]


PAYMENT_METHOD = "defaultPaymentMethod { id }"


@pytest.mark.parametrize(
    "document",
    [
        "query ($id: ID!) { customer(id: $id) { name } }",
        f"query ($id: ID!) {{ customer(id: $id) {{ {PAYMENT_METHOD} }} }}",
        f"query ($id: ID!) {{ node(id: $id) {{ ...C }} }} fragment C on Customer {{ {PAYMENT_METHOD} }}",
        f"{{ customers {{ edges {{ node {{ {PAYMENT_METHOD} }} }} }} }}",
        f"{{ viewer {{ customers {{ nodes {{ {PAYMENT_METHOD} }} }} }} }}",
    ],
)
async def test_default_payment_method_takes_no_read_of_its_own(
    api: ApiHarness, sandbox: StripeSandbox, document: str
) -> None:
    """The card is expanded in the customer read, also for lists; a second query takes no read."""
    customers = [await api.shop.customer(slug) for slug in ("acme", "other")]
    for customer in customers:
        await api.attach_card(customer)
    await sandbox.reset_counters()
    variables = {"id": customers[0]} if "$id" in document else {}

    shown = [await api.query(SUPPORT, document, **variables) for _ in range(2)]

    assert shown[0] == shown[1]
    assert (await sandbox.counters())["reads"] == 1


async def test_excluded_default_payment_method_is_not_fetched(
    api: ApiHarness, sandbox: StripeSandbox
) -> None:
    """A field removed by `@include` is not expanded; requesting it later takes another read."""
    customer = await api.shop.customer()
    await api.attach_card(customer)
    await sandbox.reset_counters()
    query = f"query ($id: ID!, $shown: Boolean!) {{ customer(id: $id) {{ name {PAYMENT_METHOD.replace('{', '@include(if: $shown) {')} }} }}"

    plain = (await api.query(SUPPORT, query, id=customer, shown=False))["customer"]
    whole = (await api.query(SUPPORT, query, id=customer, shown=True))["customer"]

    assert "defaultPaymentMethod" in {*whole} - {*plain}
    assert (await sandbox.counters())["reads"] == 2


async def test_spend_history_sums_finalized_invoices_by_month(api: ApiHarness) -> None:
    """Drafts and voided invoices are not part of the spend history."""
    customer = await api.shop.customer()
    for amount in (1000, 250):
        await api.finalize_invoice(await api.create_invoice(customer, amount))
    await api.create_invoice(customer, 99)

    query = "query ($id: ID!, $n: Int) { customer(id: $id) { spendHistory(months: $n) { month total { amount } invoices } } }"
    shown = await api.query(panel_viewer(customer), query, id=customer, n=3)

    month = f"{datetime.now(UTC):%Y-%m}"
    assert shown["customer"]["spendHistory"] == [
        {"month": month, "total": {"amount": "12.5"}, "invoices": 2}
    ]
    for beyond in (0, 61):
        assert await api.error_codes(panel_viewer(customer), query, id=customer, n=beyond) == [
            "BAD_USER_INPUT"
        ]


async def test_viewer_customers_are_those_of_the_token(api: ApiHarness) -> None:
    """The panel needs only the token; ids unknown to Stripe are left out."""
    mine = sorted([await api.shop.customer(f"org{n}") for n in range(3)])
    await api.shop.customer("other")
    query = "query ($after: String) { viewer { role customers(first: 2, after: $after) { nodes { id } pageInfo { hasNextPage endCursor } } } }"
    viewer = panel_viewer(*mine, "cus_zzzAbsent")

    first = (await api.query(viewer, query))["viewer"]
    rest = (await api.query(viewer, query, after=first["customers"]["pageInfo"]["endCursor"]))[
        "viewer"
    ]

    assert first["role"] == "CUSTOMER"
    assert [node["id"] for node in first["customers"]["nodes"] + rest["customers"]["nodes"]] == mine
    assert first["customers"]["pageInfo"]["hasNextPage"]
    assert not rest["customers"]["pageInfo"]["hasNextPage"]


async def test_support_viewer_customers_are_all(api: ApiHarness) -> None:
    """For Support the viewer's customers are all customers."""
    made = [await api.shop.customer(f"org{n}") for n in range(3)]

    shown = await api.query(
        SUPPORT,
        "{ viewer { customers(first: 2) { nodes { id } pageInfo { hasNextPage } } } customers { nodes { id } } }",
    )

    assert [node["id"] for node in shown["viewer"]["customers"]["nodes"]] == made[:0:-1]
    assert [node["id"] for node in shown["customers"]["nodes"]] == made[::-1]


ALL_LISTS = """
  query ($id: ID!, $mail: String!, $withInfo: Boolean!) {
    customers(first: 0) { ...No } byMail: customers(first: 0, email: $mail) { ...No }
    byId: customers(first: 0, search: "CUSTOMER") { ...No } byName: customers(first: 0, search: "acm") { ...No }
    syncs(first: 0) { ...Sync } webhookEvents(first: 0) { ...Event } holds(first: 0) { ...Hold } viewer { customers(first: 0) { ...No } }
    customer(id: $id) { invoices(first: 0) { ...Invoice } paymentMethods(first: 0) { ...Card }
      adjustments(first: 0) { ...Adjustment } auditLog(first: 0) { ...Entry }
      drafts: invoices(first: 1) { nodes { lines(first: 0) { ...Line } } } } }"""
INFO = " { nodes { __typename } pageInfo @include(if: $withInfo) { hasNextPage } }"
NODE_TYPES = {
    "No": "Customer", "Sync": "Sync", "Event": "WebhookEvent", "Hold": "Hold", "Invoice": "Invoice", "Card": "PaymentMethod",
    "Adjustment": "Adjustment", "Entry": "AuditEntry", "Line": "InvoiceLine",
}  # fmt: skip


def empty_pages(shown: Any) -> list[dict[str, Any]]:
    """Every empty page anywhere in *shown*."""
    if isinstance(shown, list):
        return [page for value in shown for page in empty_pages(value)]
    if not isinstance(shown, dict):
        return []
    if shown.get("nodes") == []:
        return [shown]
    return [page for value in shown.values() for page in empty_pages(value)]


async def test_empty_page_tells_whether_entries_follow(
    api: ApiHarness, sandbox: StripeSandbox
) -> None:
    """In every list, `hasNextPage` of `first: 0` follows Relay; Stripe is read only if it is selected."""
    await sandbox.settings(search_lag=0)
    customer = await api.shop.customer()
    await api.attach_card(customer)
    await api.record_usage(customer, "1000000")
    await api.flush(customer)
    correct = """mutation ($id: ID!) { adjustUsage(input: {customerId: $id, sku: "egress-gb", quantity: "1",
      reason: "missed", idempotencyKey: "k"}) { errors { code } } }"""
    await api.query(SUPPORT, correct, id=customer)
    await api.services.inbox.receive([EventRef("evt_1", "customer.updated", customer)])
    await api.services.ledger.holds.place(CustomerId(customer), "disputed", "ann")
    fragments = [f" fragment {name} on {of}Connection{INFO}" for name, of in NODE_TYPES.items()]
    document = ALL_LISTS.replace("CUSTOMER", customer) + "".join(fragments)
    variables = {"id": customer, "mail": "billing@acme.example"}
    await api.query(
        SUPPORT,
        "query ($id: ID!) { customer(id: $id) { invoices(first: 1) { nodes { id } } } }",
        id=customer,
    )
    await sandbox.reset_counters()

    without_info = await api.query(SUPPORT, document, **variables, withInfo=False)
    reads = (await sandbox.counters())["reads"]
    with_info = await api.query(SUPPORT, document, **variables, withInfo=True)

    assert reads == 0
    assert len(empty_pages(without_info)) == len(empty_pages(with_info)) == 13
    assert [page["pageInfo"]["hasNextPage"] for page in empty_pages(with_info)] == [True] * 13


async def test_syncs_and_webhook_events_with_filters(api: ApiHarness) -> None:
    """Lists of Support, newest first, with their filters."""
    one, other = [await api.shop.customer(slug) for slug in ("acme", "other")]
    for customer in (one, other):
        await api.record_usage(customer)
        await api.flush(customer)
    await api.services.inbox.receive([EventRef("evt_1", "customer.updated", one, CustomerId(one))])
    await api.services.inbox.receive([EventRef("evt_2", "charge.pending", "ch_1")])

    query = """query ($c: ID, $s: SyncStatus, $w: WebhookEventStatus) {
      syncs(customerId: $c, status: $s) { nodes { customer { id } status } }
      webhookEvents(status: $w) { nodes { id type status attempts receivedAt objectId customerId } } }"""
    everything = await api.query(SUPPORT, query)
    some = await api.query(SUPPORT, query, c=one, s="SUCCEEDED", w="IGNORED")
    none = await api.query(SUPPORT, query, c="cus_absent", s="FAILED", w="FAILED")

    assert {node["customer"]["id"] for node in everything["syncs"]["nodes"]} == {one, other}
    assert [node["id"] for node in everything["webhookEvents"]["nodes"]] == ["evt_2", "evt_1"]
    assert [node["customer"]["id"] for node in some["syncs"]["nodes"]] == [one]
    assert [node["status"] for node in some["webhookEvents"]["nodes"]] == [EventStatus.IGNORED]
    assert none == {"syncs": {"nodes": []}, "webhookEvents": {"nodes": []}}


HOLDS = """query ($n: Int, $after: String) { holds(first: $n, after: $after) {
  nodes { customerId reason by since customer { id } } edges { cursor node { customerId } }
  pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""


async def test_holds_lists_active_holds_oldest_first(api: ApiHarness) -> None:
    """Holds of any origin, oldest first, page by page."""
    made = [await api.shop.customer(f"org{n}") for n in range(3)]
    hold = """mutation ($id: ID!) { holdBilling(input: {customerId: $id, reason: "disputed"}) { hold { since } } }"""
    since = (await api.query(SUPPORT, hold, id=made[0]))["holdBilling"]["hold"]["since"]
    await api.services.ledger.holds.place_once(CustomerId(made[1]), "voided", "gateway", "in_1")
    await api.query(SUPPORT, hold, id=made[2])

    first = (await api.query(SUPPORT, HOLDS, n=2))["holds"]
    rest = (await api.query(SUPPORT, HOLDS, after=first["pageInfo"]["endCursor"]))["holds"]

    assert [node["customerId"] for node in first["nodes"] + rest["nodes"]] == made
    assert first["nodes"][0] == {
        "customerId": made[0],
        "reason": "disputed",
        "by": SUPPORT.subject,
        "since": since,
        "customer": {"id": made[0]},
    }
    assert [node["by"] for node in first["nodes"][1:]] == ["gateway"]
    assert [edge["node"]["customerId"] for edge in first["edges"]] == made[:2]
    assert first["edges"][-1]["cursor"] == first["pageInfo"]["endCursor"]
    assert (first["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"]) == (True, False)
    assert await api.error_codes(SUPPORT, HOLDS, after="nonsense") == ["BAD_USER_INPUT"]
    assert await api.error_codes(SUPPORT, HOLDS, n=101) == ["BAD_USER_INPUT"]


async def test_hold_of_deleted_customer_is_listed(api: ApiHarness) -> None:
    """A hold stays visible after its customer was deleted, so that it can be released."""
    await api.services.ledger.holds.place(CustomerId("cus_Gone"), "disputed", "ann")

    [hold] = (await api.query(SUPPORT, HOLDS))["holds"]["nodes"]

    assert (hold["customerId"], hold["customer"]) == ("cus_Gone", None)


async def test_holds_are_for_support_only(api: ApiHarness) -> None:
    """Customers cannot read holds, not even their own."""
    customer = await api.shop.customer()
    await api.services.ledger.holds.place(CustomerId(customer), "looks like fraud", "ann")

    for viewer in (panel_viewer(customer), METERING):
        result = await api.execute(viewer, HOLDS)
        assert (result.data, len(result.errors or ())) == (None, 1)
        assert "fraud" not in str(result.errors)
        assert await api.error_codes(viewer, HOLDS) == ["FORBIDDEN"]


async def test_stripe_budget_lists_lanes_and_endpoints(api: ApiHarness) -> None:
    """Lanes and rate limits explain why Stripe is updated late."""
    shown = await api.query(
        SUPPORT,
        """{ stripeBudget { lanes { lane waiting } endpoints { endpoint perSecond available throttled }
          limitedUntil reads readAllowance } }""",
    )

    assert shown["stripeBudget"]["lanes"][0]["lane"] == "customer"
    assert any(
        endpoint["endpoint"] == "POST /v1/prices" for endpoint in shown["stripeBudget"]["endpoints"]
    )


async def test_stripe_budget_counts_reads(api: ApiHarness, settings: Settings) -> None:
    """Reads are limited by the month; the budget shows how many were made."""
    document = "{ stripeBudget { reads readAllowance } }"
    before = (await api.query(SUPPORT, document))["stripeBudget"]

    await api.services.stripe.read(f"/v1/customers/{await api.shop.customer()}", lane=Lane.SUPPORT)

    after = (await api.query(SUPPORT, document))["stripeBudget"]
    assert after["reads"] == before["reads"] + 1
    assert after["readAllowance"] == settings.stripe_read_allowance


async def test_freshness_source_and_time(api: ApiHarness) -> None:
    """A cached value has the time at which Stripe returned it."""
    customer = await api.shop.customer()
    query = "query ($id: ID!) { customer(id: $id) { freshness { source fetchedAt } } }"
    viewer = panel_viewer(customer)
    first = (await api.query(viewer, query, id=customer))["customer"]["freshness"]
    again = (await api.query(viewer, query, id=customer))["customer"]["freshness"]

    assert (first["source"], again["source"]) == ("STRIPE", "CACHE")
    assert first["fetchedAt"] == again["fetchedAt"]
