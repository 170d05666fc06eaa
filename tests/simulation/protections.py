"""The protections that the small world tries, and how each is switched off.

A line that no longer exists is an error, so no mutation becomes stale unnoticed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from itertools import count
from typing import Any

from billing.errors import KeyExpired, OutcomeUnknown
from billing.invoicing import carry_forward, diff, requests, rewind
from billing.invoicing.request_batch import RequestBatch
from billing.ledger import usage
from billing.ledger.leases import Leases
from tests.simulation.machine import Machine
from tests.simulation.mutation import Mutation, instead_of, lua
from tests.support.ledger import Proxy
from workers.flush import closing, flush
from workers.flush import rewind as rewind_steps
from workers.flush.execution import FlushExecution


def _every_id_is_new() -> Any:
    salt = count()

    def salted(data: bytes, *, digest_size: int) -> Any:
        is_id = digest_size == ID_BYTES
        return blake2b(data + b"|%d" % next(salt) * is_id, digest_size=digest_size)

    return instead_of(usage, "blake2b", salted)


def _random_keys() -> Any:
    send = FlushExecution._send

    async def sends(self: FlushExecution, batch: Any, request: Any) -> Any:
        key = f"{request.idempotency_key}:{self.context.random()}"
        return await send(self, batch, replace(request, idempotency_key=key))

    return instead_of(FlushExecution, "_send", sends)


def _drops_on_timeout() -> Any:
    send = FlushExecution._send

    async def sends(self: FlushExecution, batch: Any, request: Any) -> Any:
        try:
            return await send(self, batch, request)
        except OutcomeUnknown as error:
            raise KeyExpired from error

    return instead_of(FlushExecution, "_send", sends)


def _no_write_ahead() -> Any:
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


def _keys_for_ever() -> Any:
    send = FlushExecution._send

    async def sends(self: FlushExecution, batch: Any, request: Any) -> Any:
        self.started_at = 1e12
        return await send(self, batch, request)

    return instead_of(FlushExecution, "_send", sends)


@contextmanager
def _no_doubt() -> Iterator[None]:
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


def _stored_errors_are_retried() -> Any:
    def retry(_: FlushExecution, error: Any) -> None:
        if getattr(error, "replayed", False):
            raise OutcomeUnknown("taken for a transient error")

    return instead_of(FlushExecution, "_record_rejection", retry)


def _no_listing() -> Any:
    async def fetch(self: FlushExecution, *, listing: bool = False) -> None:
        if self.snapshot.invoice is not None:
            await self.fetch_invoice()
        self.other_invoices = self.other_invoices or ()

    return instead_of(FlushExecution, "fetch_invoices", fetch)


def _no_generation() -> Any:
    commit = FlushExecution.commit

    async def commits(self: FlushExecution, **facts: Any) -> None:
        await commit(self, **{**facts, "generation": None})

    return instead_of(FlushExecution, "commit", commits)


def _doubles_stay() -> Any:
    diff_lines = diff.diff_lines

    def lenient(desired: Any, current: Any) -> Any:
        return diff_lines(desired, list(dict(reversed(list(current))).items()))

    return instead_of(diff, "diff_lines", lenient)


def _room_for_all() -> Any:
    desired_lines = diff.desired_lines

    def roomy(snapshot: Any, prices: Any, *, room: int) -> Any:
        return desired_lines(snapshot, prices, room=diff.MAX_LINES)

    return instead_of(diff, "desired_lines", roomy)


def _unnoticed_rewind() -> Any:
    async def nothing(self: Machine) -> None:
        pass

    return instead_of(Machine, "new_epoch", nothing)


def _no_hold() -> Any:
    async def free(_: FlushExecution) -> bool:
        return False

    return instead_of(flush, "is_on_hold", free)


async def _nothing(*_: Any, **__: Any) -> None:
    pass


def _no_recovery() -> Any:
    return instead_of(FlushExecution, "_recover_lost_periods", _nothing)


def _unmarked_amounts() -> Any:
    by_amount = requests._LineSerializer._by_amount

    def plain(self: Any, key: Any, line: Any) -> Any:
        body = by_amount(self, key, line)
        body["metadata"].pop("gw_amount", None)
        return body

    return instead_of(requests._LineSerializer, "_by_amount", plain)


def _no_quiet_time() -> Any:
    async def finalizes(execution: FlushExecution, plan: Any) -> None:
        seq = execution.next_seq()
        await execution.prepare(requests.finalize(execution.snapshot, plan.lines, seq=seq))

    return instead_of(closing, "_finalize", finalizes)


ID_BYTES = 12
COUNTER = "string.match(%sfence or '', '^%%d+')"


def _fetches_once(execution: FlushExecution) -> bool:
    return execution.snapshot.invoice is None and execution.other_invoices is None


CLEAN = "header.version == header.synced"
RAISED = "'version', raised(following_header.version)"
LEASED = "header and header.fence == fence and header.epoch == epoch"

PROTECTIONS = (
    Mutation("an id counts once", _every_id_is_new),
    Mutation(
        "counting marks as due in the same step",
        lambda: lua("record", "due_within(period, ARGV[9])", ""),
    ),
    Mutation(
        "a cut period takes no usage",
        lambda: lua("prelude", "while not takes_usage(period, settle) do", "while false do"),
    ),
    Mutation(
        "late usage begins no month that has ended",
        lambda: lua("prelude", "return now < end_of(period) + settle", "return true"),
    ),
    Mutation(
        "clean means: the version that was told is the one recorded",
        lambda: lua("prelude", CLEAN, "true"),
    ),
    Mutation(
        "what is told is the version that was planned, not the newest",
        lambda: lua("commit", "set('synced', ARGV[5])", "set('synced', header.version)"),
    ),
    Mutation(
        "a lease is fenced",
        lambda: lua("prelude", LEASED, "header and header.fence"),
        ("plain", "rewinds"),
    ),
    Mutation(
        "a fence is more than a counter",
        lambda: lua("prelude", LEASED, f"header and {COUNTER % 'header.'} == {COUNTER % ''}"),
        ("rewinds", "edits, rewinds"),
    ),
    Mutation("requests are written down before they are sent", _no_write_ahead),
    Mutation("a request keeps its key", _random_keys),
    Mutation("a request without an answer is not given up", _drops_on_timeout),
    Mutation("no key is sent after 20 hours", _keys_for_ever),
    Mutation("an error that is replayed is final", _stored_errors_are_retried),
    Mutation(
        "nothing is added without having looked",
        lambda: instead_of(flush, "_must_fetch", _fetches_once),
        ("rewinds", "edits, rewinds"),
    ),
    Mutation(
        "invoices are listed before one is made or a period ends",
        _no_listing,
        ("rewinds", "edits, rewinds"),
    ),
    Mutation(
        "an invoice that is gone gets a successor of its own key",
        _no_generation,
        ("edits", "edits, rewinds"),
    ),
    Mutation("of a doubled line one goes", _doubles_stay, ("refusals",)),
    Mutation(
        "a period is sealed by what its invoice says",
        lambda: instead_of(carry_forward, "residuals", lambda *_: {}),
        ("edits",),
    ),
    Mutation(
        "what is left goes to a period that is open",
        lambda: lua("seal", "landing(following(period), ARGV[7])", "following(period)"),
        ("edits", "edits, rewinds"),
    ),
    Mutation(
        "what is left raises the version of the period that it goes to",
        lambda: lua("seal", f"redis.call('HSET', part(target), {RAISED})", ""),
        ("edits",),
    ),
    Mutation(
        "no flush begins a month that is forgotten",
        lambda: lua("acquire", "not before and not takes_usage(period, ARGV[6])", "false"),
    ),
    Mutation("a request without an answer may still arrive", _no_doubt, ("refusals",)),
    Mutation(
        "nothing is finalized while a request may still arrive", _no_quiet_time, ("refusals",)
    ),
    Mutation(
        "an old intent to finalize is decided anew",
        lambda: instead_of(
            FlushExecution, "_max_age_ms", lambda execution, _: execution.context.policy.key_ttl_ms
        ),
        ("edits",),
    ),
    Mutation(
        "a deletion is decided anew when it is resumed",
        lambda: instead_of(RequestBatch, "deletes", False),
        ("edits",),
    ),
    Mutation("a hold stops the flush", _no_hold),
    Mutation(
        "nothing is finalized without a correction made meanwhile",
        lambda: lua("prepare", "ARGV[7] ~= header.version", "false"),
    ),
    Mutation(
        "a bill that is being finalized takes no correction",
        lambda: lua("prelude", "ops[1][1] == 'finalize'", "ops[1][1] == 'never'"),
    ),
    Mutation(
        "a bill that may yet become final takes no correction",
        lambda: lua("prelude", "now <= (header.ambiguous_ms or 0) + quiet", "false"),
        ("refusals",),
    ),
    Mutation(
        "a bill that is final takes no correction",
        lambda: lua(
            "prelude", "header.state == 'sealed' or header.final", "header.state == 'sealed'"
        ),
    ),
    Mutation(
        "a ledger that has lost usage gives nothing back",
        lambda: instead_of(rewind, "lost_usage", lambda *_: []),
        ("rewinds", "edits, rewinds"),
    ),
    Mutation(
        "a hold for lost usage is placed by the lease's worker",
        lambda: instead_of(rewind_steps, "_commit", _nothing),
    ),
    Mutation(
        "Stripe reminds the ledger of a period it has lost",
        _no_recovery,
        ("rewinds", "edits, rewinds"),
    ),
    Mutation(
        "a draft is looked at once more when a request was given up",
        lambda: lua("prelude", ", 'look_again_ms', now + ms", ""),
        ("refusals",),
    ),
    Mutation(
        "an archived price bills no new line",
        lambda: instead_of(requests._LineSerializer, "_is_billable", lambda *_: True),
    ),
    Mutation(
        "an amount of ours is read back as its quantity",
        _unmarked_amounts,
    ),
    Mutation("other people's lines take room", _room_for_all, ("edits, cramped",)),
    Mutation("a rewound server is noticed", _unnoticed_rewind, ("rewinds", "edits, rewinds")),
)
