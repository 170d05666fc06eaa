"""Usage ingestion: each delta separately, counted once, rejected with a reason."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from billing import customer_registration, usage_ingestion
from billing.amount_limit import MAX_AMOUNT, excess_of_usage, largest_amount
from billing.budget import Lane
from billing.customer_registration import register_customers
from billing.errors import ErrorCode
from billing.invoicing.request_batch import RequestKind, StripeRequest
from billing.ledger.quantities import to_fixed_point
from billing.money import EXACT, Money, line_amount
from billing.services import Services
from billing.stripe import price_catalog
from billing.usage import CustomerId, LineKey, Period, Price
from billing.usage_ingestion import record_usage
from billing.usage_validation import parse_quantity, parse_timestamp
from tests.support.stripe_catalog import Shop, delta
from tests.support.stripe_sandbox import StripeSandbox


@pytest.fixture
async def shop(services: Services) -> Shop:
    """Three prices at Stripe."""
    opened = Shop(services)
    await opened.open()
    return opened


async def total(services: Services, customer: str, sku: str = "machine-seconds") -> Decimal:
    """Quantity of *sku* in the ledger this month."""
    snapshot = await services.ledger.periods.snapshot(
        CustomerId(customer), Period.containing(datetime.now(UTC))
    )
    return snapshot.totals.get(LineKey(sku), Decimal(0))


async def give_currency(services: Services, customer: str, currency: str) -> None:
    """Give *customer* a currency at Stripe, with a credit that is taken back at once."""
    path = f"/v1/customers/{customer}/balance_transactions"
    for amount in (-1, 1):
        params = {"amount": amount, "currency": currency}
        await services.stripe.write(path, params, key=f"{path} {amount}", lane=Lane.SUPPORT)
    await services.cache.invalidate(customer)


async def delete_customer(services: Services, customer: str) -> None:
    """Delete *customer* at Stripe."""
    path = f"/v1/customers/{customer}"
    request = StripeRequest(RequestKind.DELETE, "DELETE", path, {}, path)
    await services.stripe.send(request, lane=Lane.SUPPORT)


async def test_repeated_delta_counts_once(services: Services, shop: Shop) -> None:
    """Reporters retry; customers must not pay for it."""
    once = delta(await shop.customer(), "0.000000000001")

    first = await record_usage(services, [once, once])
    again = await record_usage(services, [once])

    assert (first.accepted, first.duplicates, again.duplicates) == (1, 1, 1)
    assert await total(services, once.customer_id) == Decimal("0.000000000001")


async def test_report_states_durability(services: Services, shop: Shop) -> None:
    """Reporters may discard deltas that are on disk."""
    report = await record_usage(services, [delta(await shop.customer())])

    assert report.durability == "FSYNCED"
    assert report.ledger_epoch


async def test_known_id_with_other_content_is_rejected(services: Services, shop: Shop) -> None:
    """The first one stands: a second amount under the same id is the sender's mistake."""
    customer = await shop.customer()
    first = delta(customer, "5")
    other = delta(customer, "6", id=first.id, occurred_at=first.occurred_at)

    await record_usage(services, [first])
    report = await record_usage(services, [other])

    assert [rejection.error.code for rejection in report.rejected] == [
        ErrorCode.IDEMPOTENCY_CONFLICT
    ]
    assert await total(services, customer) == 5


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("sku", "no-such-sku", ErrorCode.UNKNOWN_SKU),
        ("sku", "", ErrorCode.INVALID_INPUT),
        ("sku", "adj:1", ErrorCode.INVALID_INPUT),
        ("sku", "a~2026-10", ErrorCode.INVALID_INPUT),
        ("sku", "rest", ErrorCode.INVALID_INPUT),
        ("id", "", ErrorCode.INVALID_INPUT),
        ("customer_id", "cus_nobody", ErrorCode.NOT_FOUND),
        ("customer_id", "in_1", ErrorCode.INVALID_INPUT),
        ("quantity", "1e3", ErrorCode.INVALID_INPUT),
        ("quantity", "NaN", ErrorCode.INVALID_INPUT),
        ("quantity", "1_000", ErrorCode.INVALID_INPUT),
        ("quantity", "٣", ErrorCode.INVALID_INPUT),
        ("quantity", "1234567890123456", ErrorCode.INVALID_INPUT),
        ("quantity", "0.0000000000001", ErrorCode.INVALID_INPUT),
        ("occurred_at", "2026-11-22T09:30:00", ErrorCode.INVALID_INPUT),
        ("occurred_at", "yesterday", ErrorCode.INVALID_INPUT),
        ("occurred_at", "2026-02-30T00:00:00Z", ErrorCode.INVALID_INPUT),
        ("app", "two\nlines", ErrorCode.INVALID_INPUT),
    ],
)
async def test_invalid_delta_is_rejected_alone(
    services: Services,
    shop: Shop,
    field: str,
    value: str,
    code: ErrorCode,
) -> None:
    """A mistake in one delta does not affect the others of the batch."""
    customer = await shop.customer()
    bad = delta(customer, **{field: value})

    report = await record_usage(services, [delta(customer, "2"), bad, delta(customer, "3")])

    assert (report.accepted, [rejection.error.code for rejection in report.rejected]) == (2, [code])
    assert await total(services, customer) == 5


async def test_id_may_contain_any_printable_character(services: Services, shop: Shop) -> None:
    """The id is the reporter's own; reserved characters concern SKUs alone."""
    report = await record_usage(services, [delta(await shop.customer(), id="fra~1 adj:42 rest")])

    assert (report.accepted, report.rejected) == (1, ())


@pytest.mark.parametrize("fault", ["error_500_before", "answer_lost_after", "rate_limited"])
async def test_unconfirmed_customer_is_rejected_alone(
    services: Services,
    shop: Shop,
    sandbox: StripeSandbox,
    fault: str,
) -> None:
    """Deltas of other customers are counted; those of the unconfirmed one are counted when sent again."""
    known, new, unsure = [await shop.customer() for _ in range(3)]
    await record_usage(services, [delta(known)])
    await sandbox.fault(fault, "GET /v1/customers/{customer}", times=9, object=unsure)
    batch = [delta(unsure, "2"), delta(known, "3"), delta(new, "4"), delta(unsure, "5")]

    report = await record_usage(services, batch)

    assert (
        report.accepted,
        [(rejection.id, rejection.error.code) for rejection in report.rejected],
    ) == (
        2,
        [(batch[0].id, ErrorCode.STRIPE_UNAVAILABLE), (batch[3].id, ErrorCode.STRIPE_UNAVAILABLE)],
    )
    assert [await total(services, customer) for customer in (known, new, unsure)] == [4, 4, 0]

    await sandbox.clear_faults()
    await asyncio.sleep(1.1)  # the cache retries Stripe one second after a failure
    again = await record_usage(services, batch)

    assert (again.accepted, again.duplicates, again.rejected) == (2, 2, ())


async def test_known_customers_are_counted_when_new_ones_cannot_be_looked_up_in_time(
    services: Services,
    shop: Shop,
    sandbox: StripeSandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The batch neither waits for a Stripe that hangs nor for thousands of customers; what is refused may be sent again."""
    monkeypatch.setattr(customer_registration, "LOOKUP_SECONDS", 0.5)
    at_once = customer_registration.MAX_CONCURRENT_LOOKUPS
    known = await shop.customer()
    await record_usage(services, [delta(known)])
    batch = [delta(known), *[delta(await shop.customer()) for _ in range(at_once + 2)]]
    slow = "GET /v1/customers/{customer}"
    await sandbox.fault("slow", slow, times=at_once, seconds=6)

    async with asyncio.timeout(5):
        report = await record_usage(services, batch)

    assert report.accepted == 1
    assert Counter(rejection.error.code for rejection in report.rejected) == {
        ErrorCode.STRIPE_UNAVAILABLE: at_once,
        ErrorCode.OVERLOADED: 2,
    }
    assert all(rejection.error.retry_after for rejection in report.rejected)


async def test_time_for_prices_is_time_less_for_customers(
    services: Services, shop: Shop, sandbox: StripeSandbox
) -> None:
    """What a batch waits is bounded in all, not for each of the things that it waits for."""
    await sandbox.fault("slow", "GET /v1/customers/{customer}", seconds=6)
    price = (await services.price_catalog.by_sku(["machine-seconds"]))["machine-seconds"]
    customer = CustomerId(await shop.customer())
    long_ago = datetime.now(UTC) - timedelta(seconds=customer_registration.LOOKUP_SECONDS)

    async with asyncio.timeout(5):
        refusals = await register_customers(services, {customer: price}, long_ago)

    assert [error.code for error in refusals.values()] == [ErrorCode.STRIPE_UNAVAILABLE]


@pytest.mark.parametrize("offset", [timedelta(days=-36), timedelta(minutes=6)])
async def test_too_old_and_future_usage_is_rejected(
    services: Services, shop: Shop, offset: timedelta
) -> None:
    """Ids are remembered for weeks only; a clock that is ahead bills the wrong month."""
    when = (datetime.now(UTC) + offset).isoformat()

    report = await record_usage(services, [delta(await shop.customer(), occurred_at=when)])

    assert [(rejection.error.code, rejection.error.path) for rejection in report.rejected] == [
        (ErrorCode.INVALID_INPUT, ("occurredAt",)),
    ]


async def test_other_currency_is_rejected(
    services: Services,
    shop: Shop,
    sandbox: StripeSandbox,
) -> None:
    """An invoice has one currency; a line in another cannot be billed."""
    customer = await shop.customer()
    await services.ledger.usage.register_customer(CustomerId(customer), "eur")

    report = await record_usage(services, [delta(customer)])

    assert [rejection.error.path for rejection in report.rejected] == [("sku",)]
    assert "is priced in USD" in report.rejected[0].error.message


async def test_validation_of_a_large_batch_lets_others_run() -> None:
    """A panel must not wait for ten thousand deltas of somebody else."""
    batch = [delta("cus_1") for _ in range(5 * usage_ingestion.SLICE)]
    validation, others = asyncio.create_task(usage_ingestion._validate_all(batch)), 0
    while not validation.done():
        await asyncio.sleep(0)
        others += 1

    assert len(await validation) == len(batch)
    assert others >= 5


async def test_known_customers_and_prices_cause_no_reads(
    services: Services,
    shop: Shop,
    sandbox: StripeSandbox,
) -> None:
    """Usage arrives by the thousand; Stripe's reads are rationed."""
    customer = await shop.customer()
    await record_usage(services, [delta(customer)])
    await sandbox.reset_counters()

    await record_usage(services, [delta(customer) for _ in range(1200)])

    assert (await sandbox.counters())["total"] == 0


@pytest.mark.parametrize(
    "text",
    ["NaN", "Infinity", "1e5", "1_000", " 1", "1 ", "+1", "٣", "", ".5", "5.", "1\n", 1.5, 1, True, None, [], "9" * 65],
)  # fmt: skip
def test_parse_quantity_accepts_plain_decimals_only(text: object) -> None:
    """Python's Decimal would accept most of these; a float has been rounded already."""
    assert parse_quantity(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.083333333333000000", "0.083333333333"),
        ("2.000000000000000", "2"),
        ("-0.000000000000000000", "0"),
        ("0000000000000000007.50", "7.5"),
    ],
)
def test_zeros_around_a_quantity_change_nothing(text: str, value: str) -> None:
    """FOCUS writes consumed quantities with eighteen decimals."""
    quantity = parse_quantity(text)

    assert quantity == Decimal(value)
    assert to_fixed_point(quantity) == to_fixed_point(Decimal(value))


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-11-22T09:30:00Z", "2026-11-22T09:30:00+00:00"),
        ("2026-11-22t11:30:00.250+02:00", "2026-11-22T09:30:00.250000+00:00"),
        ("2026-11-01T00:00:00.123456789Z", "2026-11-01T00:00:00.123456+00:00"),
        ("0001-01-01T00:00:00+14:00", None),
        ("2026-11-22T24:01:00Z", None),
        ("2026-11-22T10:00:00Z\n", None),
        ("2026-11-22", None),
        ("2026-11-30t20:29:23z", "2026-11-30T20:29:23+00:00"),
        ("2026-11-30T20:29:23.12345678901234567890-00:00", "2026-11-30T20:29:23.123456+00:00"),
        ("2026-12-31T23:59:60Z", "2026-12-31T23:59:59.999999+00:00"),
        ("2026-12-31T15:59:60.5-08:00", "2026-12-31T23:59:59.999999+00:00"),
        ("2026-12-31T12:00:60Z", None),
        ("2026-12-31T23:59:61Z", None),
        ("2026-11-30T20:29:23,5Z", None),
        ("2026-11-30T20:29:23." + "0" * 999 + "Z", None),
        (1_700_000_000, None),
        (None, None),
    ],
)
def test_parse_timestamp_requires_an_offset(text: object, utc: str | None) -> None:
    """A time without an offset would be billed in the server's own time zone."""
    found = parse_timestamp(text)

    assert (found and found.isoformat()) == utc


async def test_recurring_price_rejects_only_its_own_usage(services: Services, shop: Shop) -> None:
    """Stripe bills no line by a recurring price: counted, it would park the customer's month."""
    plan, customer = (
        await shop.sell("pro-plan", recurring={"interval": "month"}),
        await shop.customer(),
    )
    report = await record_usage(
        services, [delta(customer, "2"), delta(customer, "1", "pro-plan"), delta(customer, "3")]
    )

    [rejected] = report.rejected
    assert (report.accepted, rejected.error.code) == (2, ErrorCode.UNUSABLE_PRICE)
    assert rejected.error.path == ("sku",)
    assert plan in rejected.error.message
    assert rejected.error.message.endswith("(transfer_lookup_key), then send this delta again.")
    assert await total(services, customer, "pro-plan") == 0


@pytest.fixture
def quick_reread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the list of prices be read again after a second."""
    monkeypatch.setattr(price_catalog, "REREAD_SECONDS", 1.0)


@pytest.mark.usefixtures("quick_reread")
async def test_price_whose_event_is_late_counts_usage(
    services: Services, shop: Shop, sandbox: StripeSandbox
) -> None:
    """A SKU is refused for good only after a second look, also one whose price is unusable in the old copy."""
    customer = await shop.customer()
    await shop.sell("plan", recurring={"interval": "month"})
    first = await record_usage(services, [plan := delta(customer, "2", "plan")])
    await shop._create_price("new-sku", unit_amount_decimal="2")  # no event invalidates the list
    await shop._create_price("plan", unit_amount_decimal="2")
    batch = [delta(customer, "2", "new-sku"), plan, delta(customer, "3")]

    early = await record_usage(services, batch)
    await asyncio.sleep(1.1)
    late = await record_usage(services, batch)

    assert [r.error.retry_after for r in (*first.rejected, *early.rejected)] == [None, 1, 1]
    assert [r.error.code for r in early.rejected] == [
        ErrorCode.UNKNOWN_SKU,
        ErrorCode.UNUSABLE_PRICE,
    ]
    assert (early.accepted, late.accepted, late.duplicates) == (1, 2, 1)


@pytest.mark.usefixtures("quick_reread")
async def test_invented_sku_reads_the_list_less_and_less(
    services: Services, shop: Shop, sandbox: StripeSandbox
) -> None:
    """A sender that never stops would use up the month's reads; another SKU is not held up by it."""
    customer, catalog = await shop.customer(), services.price_catalog
    for _ in range(2):
        report = await record_usage(services, [delta(customer, sku="nope")])
        assert report.rejected[0].error.retry_after is None
        await asyncio.sleep(1.1)

    pauses = [catalog._reread_at(sku) - catalog._fetched_at.timestamp() for sku in ("nope", "new")]
    assert pauses == pytest.approx([2, 1])
    assert await sandbox.calls("GET /v1/prices") == 2


@pytest.mark.usefixtures("quick_reread")
async def test_outage_during_the_second_look_refuses_only_the_unknown_sku(
    services: Services, shop: Shop, sandbox: StripeSandbox
) -> None:
    """What can be counted is counted, and the rest may be sent again."""
    customer = await shop.customer()
    await record_usage(services, [delta(customer)])
    await asyncio.sleep(1.1)
    await sandbox.fault("error_500_before", "GET /v1/prices", times=20)

    report = await record_usage(services, [delta(customer), delta(customer, sku="new-sku")])

    assert report.accepted == 1
    assert [(r.error.code, bool(r.error.retry_after)) for r in report.rejected] == [
        (ErrorCode.UNKNOWN_SKU, True)
    ]


async def test_customer_that_did_not_exist_a_moment_ago_is_not_refused_for_good(
    services: Services, shop: Shop, sandbox: StripeSandbox
) -> None:
    """Absence is cached; the event of the creation may be late."""
    nobody = [delta("cus_nobody")]

    first = await record_usage(services, nobody)
    second = await record_usage(services, nobody)
    reads = await sandbox.calls("GET /v1/customers/{customer}")

    assert [r.error.code for r in (*first.rejected, *second.rejected)] == [ErrorCode.NOT_FOUND] * 2
    assert [r.error.retry_after for r in (*first.rejected, *second.rejected)] == [None, 3]
    assert reads == 1


async def test_customer_that_was_deleted_is_refused_for_good(
    services: Services, shop: Shop
) -> None:
    """Stripe cannot bring one back, so a copy of any age is true."""
    customer = await shop.customer()
    await delete_customer(services, customer)

    for _ in range(2):
        [rejected] = (await record_usage(services, [delta(customer)])).rejected
        assert (rejected.error.code, rejected.error.retry_after) == (ErrorCode.NOT_FOUND, None)
        assert "was deleted in Stripe" in rejected.error.message


@given(
    st.decimals(-(10**15) + 1, 10**15 - 1, places=12, allow_nan=False),
    st.decimals(0, 10**12, places=12, allow_nan=False),
    st.sampled_from(["usd", "jpy", "kwd", "ugx", "lbp"]),
)
@example(Decimal(10**15 - 1), Decimal(20_000), "usd")
@example(Decimal(99_999_999), Decimal(1), "usd")
@example(Decimal(99_999_999), Decimal("1.000000000001"), "usd")
@example(Decimal(MAX_AMOUNT), Decimal(1), "lbp")
def test_amount_within_the_limit_can_be_stored_and_billed(
    quantity: Decimal, unit_amount: Decimal, currency: str
) -> None:
    """Each within its own limit, a quantity and a price may multiply to what no integer of JSON holds."""
    price = Price("price_1", "sku", currency, unit_amount)
    amount = line_amount(quantity, unit_amount)

    excess, largest = excess_of_usage(quantity, price), largest_amount(currency)

    if excess is None:
        assert abs(amount) <= largest <= MAX_AMOUNT
        assert orjson.loads(orjson.dumps(amount * 250)) == amount * 250  # a whole invoice
    else:
        assert abs(EXACT.multiply(quantity, unit_amount)) > largest
        assert "'sku'" in excess
        assert Money.from_minor(largest, currency).formatted in excess


async def test_delta_above_the_largest_amount_is_rejected_alone(
    services: Services, shop: Shop
) -> None:
    """Counted, it would stop the customer's whole month."""
    await shop.sell("gpu-hours", unit_amount_decimal="20000")
    customer = await shop.customer()

    report = await record_usage(
        services, [delta(customer), delta(customer, "999999999999999", "gpu-hours")]
    )

    [rejected] = report.rejected
    assert (report.accepted, rejected.error.path) == (1, ("quantity",))
    assert rejected.error.message == (
        "999999999999999 of 'gpu-hours' comes to USD 199,999,999,999,999,800.00, and Stripe takes no amount"
        " above USD 999,999.99. Check the quantity."
    )


async def test_archived_price_is_not_sold(services: Services, shop: Shop) -> None:
    """Usage is counted only at an active price; what was counted before stays."""
    customer = await shop.customer()
    await record_usage(services, [delta(customer, "2")])
    await shop.archive("machine-seconds")

    report = await record_usage(services, [delta(customer, "3")])

    assert [rejection.error.code for rejection in report.rejected] == [ErrorCode.UNKNOWN_SKU]
    assert await total(services, customer) == 2


async def test_currency_of_the_customer_at_stripe_outranks_that_of_the_price(
    services: Services, shop: Shop, sandbox: StripeSandbox
) -> None:
    """A customer who pays in euros is never billed in dollars because of one delta."""
    await shop.sell("euro-seconds", currency="eur")
    customer = await shop.customer()
    await give_currency(services, customer, "eur")

    report = await record_usage(
        services, [delta(customer, "2"), delta(customer, "3", "euro-seconds")]
    )

    assert [rejection.error.code for rejection in report.rejected] == [ErrorCode.INVALID_INPUT]
    assert report.accepted == 1
    assert await services.ledger.usage.registered_currencies([CustomerId(customer)]) == {
        customer: "eur"
    }


async def test_currency_that_appears_at_stripe_replaces_that_of_the_first_delta(
    services: Services, shop: Shop
) -> None:
    """A stray delta of a euro SKU, taken off again, refuses a dollar customer's usage no longer."""
    await shop.sell("euro-seconds", currency="eur")
    customer = await shop.customer()
    await record_usage(services, [delta(customer, "2", "euro-seconds")])
    refused = await record_usage(services, [delta(customer, "5")])
    await give_currency(services, customer, "usd")
    still = await record_usage(services, [delta(customer, "5")])
    await record_usage(services, [delta(customer, "-2", "euro-seconds")])

    batch = [delta(customer, "5"), delta(customer, "7")]
    report = await record_usage(services, batch)
    again = await record_usage(services, [*batch, delta(customer, "1", "euro-seconds")])

    assert (refused.accepted, still.accepted, report.accepted) == (0, 0, 2)
    assert await total(services, customer) == 12
    assert (again.accepted, again.duplicates) == (0, 2)
    assert [rejection.error.code for rejection in again.rejected] == [ErrorCode.INVALID_INPUT]


async def test_currency_is_not_looked_up_again_for_every_refused_delta(
    services: Services, shop: Shop, sandbox: StripeSandbox
) -> None:
    """Stripe rations reads; the customer is in the cache, and a webhook replaces it."""
    await shop.sell("euro-seconds", currency="eur")
    customer = await shop.customer()
    await record_usage(services, [delta(customer)])
    await sandbox.reset_counters()
    for _ in range(3):
        report = await record_usage(services, [delta(customer, "1", "euro-seconds")])
        assert [r.error.code for r in report.rejected] == [ErrorCode.INVALID_INPUT]

    assert await sandbox.calls("GET /v1/customers/{customer}") == 0
