"""The oracle's books: what a ledger has had Stripe show, and what it has not."""

from datetime import UTC, datetime
from decimal import Decimal

from billing.ledger import DeltaOutcome
from billing.ledger.usage import RecordResult
from billing.usage import CustomerId, Period, Price, UsageDelta
from tests.simulation.year.books import Books, Page

CUSTOMER, SKU = CustomerId("cus_b"), "f"
AT = datetime(2026, 11, 5, tzinfo=UTC)


async def test_a_sync_of_another_ledger_shows_nothing_of_the_first() -> None:
    """A credit that the first ledger has not had Stripe show is still to come when that ledger is back."""
    books = Books(lambda: 0, lambda *_: None)
    await _count(books, "-3")
    first, books.page = books.page, Page()

    books.show(CUSTOMER)
    books.page = first
    hidden = books.credits_never_shown()
    books.show(CUSTOMER)

    assert hidden == {(CUSTOMER, SKU): Decimal(-3)}
    assert books.credits_never_shown()[CUSTOMER, SKU] == 0


async def _count(books: Books, quantity: str) -> None:
    """Have the ledger of *books* count one delta."""

    async def record(*_: object) -> list[RecordResult]:
        return [RecordResult(DeltaOutcome.ACCEPTED, Period.containing(AT))]

    delta = UsageDelta("event-1", CUSTOMER, SKU, Decimal(quantity), AT)
    await books.observed(record)([delta], {SKU: Price("price_f", SKU, "eur", Decimal(4))})
