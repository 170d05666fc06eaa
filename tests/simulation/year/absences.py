"""What the product does without one of the protections of the larger world."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from billing import customer_registration
from billing.events import Inbox
from billing.invoicing import requests
from billing.invoicing.request_batch import RequestBatch
from billing.ledger import periods
from billing.ledger.due import DueQueue
from billing.ledger.usage import CurrencySource
from billing.stripe.price_record import PriceRecord
from tests.simulation.mutation import instead_of, lua
from tests.simulation.year import crons
from workers import process_events
from workers.flush import closing, flush, state


async def nothing(*_: Any, **__: Any) -> None:
    """Do nothing."""


async def true(*_: Any, **__: Any) -> bool:
    """Answer yes."""
    return True


async def false(*_: Any, **__: Any) -> bool:
    """Answer no."""
    return False


def problems_but(*ignored: str) -> Any:
    """A price is usable although it has a problem that mentions one of *ignored*."""
    problem: Any = PriceRecord.problem.fget  # type: ignore[attr-defined]

    def lenient(record: PriceRecord) -> str | None:
        found = problem(record)
        return None if found and any(word in found for word in ignored) else found

    return instead_of(PriceRecord, "problem", property(lenient))


def pending_items_included() -> Any:
    """A new draft takes the pending items of its customer in."""
    create = requests.create

    def including(snapshot: Any) -> RequestBatch:
        batch = create(snapshot)
        [request] = batch.requests
        params = {**request.params, "pending_invoice_items_behavior": "include"}
        return replace(batch, requests=(replace(request, params=params),))

    return instead_of(requests, "create", including)


def currency_of_the_price() -> Any:
    """A new customer is billed in the currency of the first price."""

    async def register(services: Any, customer: Any, currency: str) -> None:
        await services.ledger.usage.register_customer(customer.id, currency, CurrencySource.PRICE)

    return instead_of(customer_registration, "_register", register)


def words_as_first_written() -> Any:
    """An update of a line leaves its words."""
    update = requests._LineSerializer.update

    def updated(self: Any, line: Any) -> Mapping[str, Any]:
        body = dict(update(self, line))
        body.pop("description", None)
        return body

    return instead_of(requests._LineSerializer, "update", updated)


def cursor_within_a_page() -> Any:
    """The cursor moves only to an event that is a minute older than the newest of its page."""

    async def stays(*_: Any) -> None:
        pass

    return instead_of(Inbox, "move_cursor", stays)


def no_poll() -> Any:
    """Nobody polls for events."""

    async def none(_: Any) -> int:
        return 0

    return instead_of(crons, "poll_events", none)


@contextmanager
def begins_anew() -> Iterator[None]:
    """A flush begins a month that is forgotten, and a forgotten month can be woken."""
    with (
        lua("acquire", "not before and not takes_usage(period, ARGV[6])", "false"),
        instead_of(DueQueue, "wake", true),
    ):
        yield


@contextmanager
def all_months_are_remembered() -> Iterator[None]:
    """Each invoice has its month verified, however old it is."""
    with (
        instead_of(state, "RECOVERY_WINDOW_MS", 10**12),
        instead_of(periods, "RECOVERY_WINDOW_MS", 10**12),
    ):
        yield


@contextmanager
def no_deletion() -> Iterator[None]:
    """Nobody learns that a customer was deleted."""
    with (
        instead_of(flush, "is_customer_deleted", false),
        instead_of(process_events, "record_deletion", false),
    ):
        yield


@contextmanager
def no_void_hold() -> Iterator[None]:
    """A voided bill holds nobody."""
    with (
        instead_of(closing, "hold_voided", nothing),
        instead_of(process_events, "hold_voided", nothing),
    ):
        yield


@contextmanager
def surplus_drafts_stay() -> Iterator[None]:
    """A second draft of a month is not looked at."""
    with (
        instead_of(closing, "surplus_draft", lambda _: None),
        instead_of(flush, "surplus_draft", lambda _: None),
    ):
        yield
