"""Usage ingestion: each delta separately, counted once, rejected with a reason."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing import usage_ingestion
from billing.budget import Lane
from billing.errors import ErrorCode
from billing.services import Services
from billing.usage import CustomerId, LineKey, Period
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


async def test_customers_beyond_the_lookup_deadline_are_rejected(
    services: Services,
    shop: Shop,
    sandbox: StripeSandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A metering service that starts with ten thousand customers must not wait for all of them."""
    monkeypatch.setattr(usage_ingestion, "LOOKUP_SECONDS", 0.2)
    await sandbox.fault(
        "slow",
        "GET /v1/customers/{customer}",
        times=usage_ingestion.MAX_CONCURRENT_LOOKUPS,
        seconds=0.5,
    )
    batch = [
        delta(await shop.customer()) for _ in range(usage_ingestion.MAX_CONCURRENT_LOOKUPS + 2)
    ]

    report = await record_usage(services, batch)
    again = await record_usage(services, batch)

    assert report.accepted == usage_ingestion.MAX_CONCURRENT_LOOKUPS
    assert [rejection.error.code for rejection in report.rejected] == [ErrorCode.OVERLOADED] * 2
    assert (again.accepted, again.duplicates) == (2, usage_ingestion.MAX_CONCURRENT_LOOKUPS)


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
    ("text", "utc"),
    [
        ("2026-11-22T09:30:00Z", "2026-11-22T09:30:00+00:00"),
        ("2026-11-22t11:30:00.250+02:00", "2026-11-22T09:30:00.250000+00:00"),
        ("2026-11-01T00:00:00.123456789Z", "2026-11-01T00:00:00.123456+00:00"),
        ("0001-01-01T00:00:00+14:00", None),
        ("2026-11-22T24:01:00Z", None),
        ("2026-11-22T10:00:00Z\n", None),
        ("2026-11-22", None),
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
