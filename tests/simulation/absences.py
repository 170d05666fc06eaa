"""What the product does without one of the protections of the small world."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from itertools import count
from typing import Any

from billing.errors import KeyExpired, OutcomeUnknown
from billing.invoicing import diff, requests
from billing.ledger import usage
from billing.ledger.leases import Leases
from tests.simulation.machine import Machine
from tests.simulation.mutation import instead_of
from tests.support.ledger import Proxy
from workers.flush import closing, flush
from workers.flush.execution import FlushExecution

ID_BYTES = 12


def every_id_is_new() -> Any:
    """No delta was counted before."""
    salt = count()

    def salted(data: bytes, *, digest_size: int) -> Any:
        is_id = digest_size == ID_BYTES
        return blake2b(data + b"|%d" % next(salt) * is_id, digest_size=digest_size)

    return instead_of(usage, "blake2b", salted)


def random_keys() -> Any:
    """Each attempt has a key of its own."""
    send = FlushExecution._send

    async def sends(self: FlushExecution, batch: Any, request: Any) -> Any:
        key = f"{request.idempotency_key}:{self.context.random()}"
        return await send(self, batch, replace(request, idempotency_key=key))

    return instead_of(FlushExecution, "_send", sends)


def drops_on_timeout() -> Any:
    """A request without an answer is given up."""
    send = FlushExecution._send

    async def sends(self: FlushExecution, batch: Any, request: Any) -> Any:
        try:
            return await send(self, batch, request)
        except OutcomeUnknown as error:
            raise KeyExpired from error

    return instead_of(FlushExecution, "_send", sends)


def no_write_ahead() -> Any:
    """Requests are sent without being written down."""

    async def nothing(*_: Any) -> None:
        pass

    async def prepare(self: FlushExecution, batch: Any) -> bool:
        ledger: Any = self.context.ledger
        ledger = Proxy(ledger, leases=Proxy(ledger.leases, mark_request_done=nothing))
        self.context = replace(self.context, ledger=ledger)
        self.snapshot = replace(self.snapshot, batch=batch)
        self.prepared_here = True
        return True

    return instead_of(FlushExecution, "prepare", prepare)


def keys_for_ever() -> Any:
    """No key is too old to be sent."""
    send = FlushExecution._send

    async def sends(self: FlushExecution, batch: Any, request: Any) -> Any:
        self.started_at = 1e12
        return await send(self, batch, request)

    return instead_of(FlushExecution, "_send", sends)


@contextmanager
def no_doubt() -> Iterator[None]:
    """No request may still arrive."""
    commit = FlushExecution.commit

    async def commits(self: FlushExecution, **facts: Any) -> None:
        await commit(self, **{**facts, "in_doubt": False})

    async def certain(*_: Any) -> None:
        pass

    with (
        instead_of(FlushExecution, "commit", commits),
        instead_of(Leases, "mark_in_doubt", certain),
    ):
        yield


def stored_errors_are_retried() -> Any:
    """An error that is replayed is taken for a passing one."""

    async def retry(_: FlushExecution, error: Any) -> None:
        if getattr(error, "replayed", False):
            raise OutcomeUnknown("taken for a transient error")

    return instead_of(FlushExecution, "_record_rejection", retry)


def no_listing() -> Any:
    """Invoices of the period are not looked for."""

    async def fetch(self: FlushExecution, *, listing: bool = False) -> None:
        if self.snapshot.invoice is not None:
            await self.fetch_invoice()
        self.other_invoices = self.other_invoices or ()

    return instead_of(FlushExecution, "fetch_invoices", fetch)


def no_generation() -> Any:
    """The successor of a lost invoice has the key of its creation."""
    commit = FlushExecution.commit

    async def commits(self: FlushExecution, **facts: Any) -> None:
        await commit(self, **{**facts, "generation": None})

    return instead_of(FlushExecution, "commit", commits)


def doubles_stay() -> Any:
    """Of a doubled line, both stay."""
    diff_lines = diff.diff_lines

    def lenient(desired: Any, current: Any) -> Any:
        return diff_lines(desired, list(dict(reversed(list(current))).items()))

    return instead_of(diff, "diff_lines", lenient)


def room_for_all() -> Any:
    """Other people's lines take no room."""
    desired_lines = diff.desired_lines

    def roomy(snapshot: Any, prices: Any, *, room: int) -> Any:
        return desired_lines(snapshot, prices, room=diff.MAX_LINES)

    return instead_of(diff, "desired_lines", roomy)


def unnoticed_rewind() -> Any:
    """A rewound server keeps its epoch."""

    async def nothing(self: Machine) -> None:
        pass

    return instead_of(Machine, "new_epoch", nothing)


def no_hold() -> Any:
    """A hold stops nothing."""

    async def free(_: FlushExecution) -> bool:
        return False

    return instead_of(flush, "is_on_hold", free)


async def nothing(*_: Any, **__: Any) -> None:
    """Do nothing."""


def no_recovery() -> Any:
    """An invoice reminds the ledger of nothing."""
    return instead_of(FlushExecution, "_recover_lost_periods", nothing)


def unmarked_amounts() -> Any:
    """An amount of usage does not say that it is one."""
    by_amount = requests._LineSerializer._by_amount

    def plain(self: Any, key: Any, line: Any) -> Any:
        body = by_amount(self, key, line)
        body["metadata"].pop("gw_amount", None)
        return body

    return instead_of(requests._LineSerializer, "_by_amount", plain)


def no_quiet_time() -> Any:
    """Nobody waits before a bill is finalized."""

    async def finalizes(execution: FlushExecution, plan: Any) -> None:
        seq = execution.next_seq()
        await execution.prepare(requests.finalize(execution.snapshot, plan.lines, seq=seq))

    return instead_of(closing, "_finalize", finalizes)


def fetches_once(execution: FlushExecution) -> bool:
    """Stripe is read before a draft is made, and not before a line is added."""
    return execution.snapshot.invoice is None and execution.other_invoices is None
