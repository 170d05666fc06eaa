"""The protections that the larger world tries, and how each is switched off."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from billing import customer_registration
from billing.events import Inbox
from billing.invoicing import metadata_keys, requests, rewind
from billing.invoicing.request_batch import RequestBatch
from billing.ledger import periods
from billing.ledger.due import DueQueue
from billing.ledger.usage import CurrencySource
from billing.stripe.price_catalog import PriceCatalog
from billing.stripe.price_record import PriceRecord
from resolvers import adjustments, invoices
from tests.simulation.mutation import Mutation, instead_of, lua
from tests.simulation.year import world
from workers import process_events
from workers.flush import closing, flush, state, voided
from workers.flush.execution import FlushExecution

LOSSES = ("ledger",)


async def _nothing(*_: Any, **__: Any) -> None:
    pass


async def _true(*_: Any, **__: Any) -> bool:
    return True


async def _false(*_: Any, **__: Any) -> bool:
    return False


def _problems_but(*ignored: str) -> Any:
    """A price is usable although it has a problem that mentions one of *ignored*."""
    problem: Any = PriceRecord.problem.fget  # type: ignore[attr-defined]

    def lenient(record: PriceRecord) -> str | None:
        found = problem(record)
        return None if found and any(word in found for word in ignored) else found

    return instead_of(PriceRecord, "problem", property(lenient))


def _pending_items_included() -> Any:
    create = requests.create

    def including(snapshot: Any) -> RequestBatch:
        batch = create(snapshot)
        [request] = batch.requests
        params = {**request.params, "pending_invoice_items_behavior": "include"}
        return replace(batch, requests=(replace(request, params=params),))

    return instead_of(requests, "create", including)


def _currency_of_the_price() -> Any:
    async def register(services: Any, customer: Any, currency: str) -> None:
        await services.ledger.usage.register_customer(customer.id, currency, CurrencySource.PRICE)

    return instead_of(customer_registration, "_register", register)


def _words_as_first_written() -> Any:
    update = requests._LineSerializer.update

    def updated(self: Any, line: Any) -> Mapping[str, Any]:
        body = dict(update(self, line))
        body.pop("description", None)
        return body

    return instead_of(requests._LineSerializer, "update", updated)


def _cursor_within_a_page() -> Any:
    """The cursor moves only to an event that is a minute older than the newest of its page."""

    async def stays(*_: Any) -> None:
        pass

    return instead_of(Inbox, "move_cursor", stays)


def _no_poll() -> Any:
    async def none(_: Any) -> int:
        return 0

    return instead_of(world, "poll_events", none)


@contextmanager
def _begins_anew() -> Iterator[None]:
    with (
        lua("acquire", "not before and not takes_usage(period, ARGV[6])", "false"),
        instead_of(DueQueue, "wake", _true),
    ):
        yield


@contextmanager
def _all_months_are_remembered() -> Iterator[None]:
    with (
        instead_of(state, "RECOVERY_WINDOW_MS", 10**12),
        instead_of(periods, "RECOVERY_WINDOW_MS", 10**12),
    ):
        yield


@contextmanager
def _no_deletion() -> Iterator[None]:
    with (
        instead_of(flush, "is_customer_deleted", _false),
        instead_of(process_events, "record_deletion", _false),
    ):
        yield


@contextmanager
def _no_void_hold() -> Iterator[None]:
    with (
        instead_of(closing, "hold_voided", _nothing),
        instead_of(process_events, "hold_voided", _nothing),
    ):
        yield


YEAR_PROTECTIONS = (
    Mutation(
        "A1: no flush begins a month that is forgotten", _begins_anew, ("retention", "support")
    ),
    Mutation(
        "A2: a ledger that has lost usage gives nothing back by itself",
        lambda: instead_of(rewind, "lost_usage", lambda *_: []),
        LOSSES,
    ),
    Mutation(
        "A3: a correction counts at the price of the usage that it corrects",
        lambda: instead_of(adjustments, "_pinned_price", _nothing),
        ("prices",),
    ),
    Mutation(
        "A4: packages and plans count no usage",
        lambda: _problems_but("packages", "recurring"),
        ("prices",),
    ),
    Mutation(
        "A6: a deletion is decided anew when it is resumed",
        lambda: instead_of(RequestBatch, "deletes", False),
        ("dashboard", "everything"),
    ),
    Mutation(
        "A7: the ledger's own clock must agree that a month is over",
        lambda: lua("ended", "math.min(ARGV[3], now - ARGV[6])", "ARGV[3]"),
        ("clocks",),
    ),
    Mutation(
        "B1: an archived price is read by its id",
        lambda: instead_of(PriceCatalog, "_read", _nothing),
        ("prices",),
    ),
    Mutation("B2: the poll's cursor moves", _cursor_within_a_page, ("customers",)),
    Mutation(
        "B3: usage of a deleted customer is said to be unbillable",
        _no_deletion,
        ("customers",),
    ),
    Mutation(
        "B4: finalizing a copy of a sealed bill is refused",
        lambda: instead_of(invoices, "_is_closed", _false),
        ("customers",),
    ),
    Mutation(
        "B5: an operator corrects the currency of a first delta",
        lambda: lua(
            "register", "elseif known and (rank == 0 or rank < before) then", "elseif known then"
        ),
        ("customers",),
    ),
    Mutation("C1: the words of a credit change with it", _words_as_first_written, ("support",)),
    Mutation(
        "C3: a bill that was revised needs nobody",
        lambda: instead_of(voided, "MAX_REVISIONS", 0),
        ("customers",),
    ),
    Mutation(
        "F1: a carry raises the version of its month",
        lambda: lua(
            "seal",
            "redis.call('HSET', part(target), 'version', raised(following_header.version))",
            "",
        ),
        ("dashboard",),
    ),
    Mutation(
        "F2: usage bills take no pending items",
        _pending_items_included,
        ("dashboard", "everything"),
    ),
    Mutation(
        "F3: a price of an archived product is not sold",
        lambda: _problems_but("product is archived"),
        ("prices",),
    ),
    Mutation(
        "F4: the customer's own currency is that of the bill",
        _currency_of_the_price,
        ("customers", "retention"),
    ),
    Mutation(
        "F5: invoices of forgotten months remind nobody",
        _all_months_are_remembered,
        ("retention",),
    ),
    Mutation(
        "late usage counts at the price of its own month",
        lambda: lua("record", "origin and price_and_quantity(origin) or row[3]", "row[3]"),
        ("prices",),
    ),
    Mutation(
        "a void holds the customer",
        _no_void_hold,
        ("customers",),
    ),
    Mutation(
        "a revision is a person's",
        lambda: instead_of(metadata_keys, "revised_invoice", lambda _: None),
        ("everything",),
    ),
    Mutation("events that were not delivered are polled", _no_poll, ("customers",)),
    Mutation(
        "a hold waits behind another one",
        lambda: lua("hold", "redis.call('RPUSH', CUSTOMER .. ':holds', content)", ""),
        ("customers",),
    ),
    Mutation(
        "a surplus draft is deleted",
        lambda: instead_of(closing, "surplus_draft", lambda _: None),
        ("dashboard", "everything"),
    ),
    Mutation(
        "a new epoch has every month verified",
        lambda: lua(
            "prelude", "return header.verify .. '@' .. epoch", "return header.verify .. '@'"
        ),
        LOSSES,
    ),
    Mutation(
        "months are cut again after a recovery",
        lambda: lua("prelude", "redis.call('ZREM', SHARD .. ':rewound', NAME)\n    for", "for"),
        LOSSES,
    ),
    Mutation(
        "a loss that was accepted is not held again",
        lambda: lua("hold", "redis.call('HEXISTS', CUSTOMER, cause) == 1", "false"),
        LOSSES,
    ),
    Mutation(
        "an archived price bills no new line",
        lambda: instead_of(requests._LineSerializer, "_is_billable", lambda *_: True),
        ("prices",),
    ),
    Mutation(
        "usage of a deleted customer is refused",
        lambda: lua("record", "deleted and 'g' or", ""),
        ("customers",),
    ),
    Mutation(
        "Stripe reminds the ledger of a period it has lost",
        lambda: instead_of(FlushExecution, "_recover_lost_periods", _nothing),
        LOSSES,
    ),
)
