# ruff: noqa: T201 - it speaks to a person on a terminal
"""Every protection, switched off one at a time: the oracle must notice, or it proves nothing.

Python is switched off by replacing a method, Lua by rewriting a line of a script. A line that no longer
exists is an error, so no mutation becomes stale unnoticed. ``python -m
tests.simulation.mutations`` prints after how many schedules each was noticed.
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b, sha1
from itertools import count
from typing import Any

import structlog

from billing.errors import KeyExpired, OutcomeUnknown
from billing.invoicing import carry_forward, diff, requests, rewind
from billing.invoicing.request_batch import RequestBatch
from billing.ledger import server, usage
from billing.ledger.leases import Leases
from tests.simulation.machine import Machine
from tests.simulation.run import MODES, Figures, Simulation, open_simulation
from tests.support.ledger import Proxy
from workers.flush import closing, flush
from workers.flush import rewind as rewind_steps
from workers.flush.execution import FlushExecution


@dataclass(frozen=True)
class Mutation:
    """One protection off. *modes* are the accidents (see ``run.MODES``) that it protects from."""

    name: str
    off: Callable[[], Any]
    modes: tuple[int, ...] = (0,)

    def __str__(self) -> str:
        return self.name


@contextmanager
def lua(script: str, line: str, instead: str) -> Iterator[None]:
    """*line* of the Lua *script* reads *instead*."""
    before = server._script_text, server._script_sha
    if line not in (server.SCRIPTS / f"{script}.lua").read_text():
        raise LookupError(f"{line!r} is no longer in {script}.lua")

    @cache
    def text(name: str) -> str:
        return before[0](name).replace(line, instead)

    @cache
    def digest(name: str) -> str:
        return sha1(text(name).encode(), usedforsecurity=False).hexdigest()

    server._script_text, server._script_sha = text, digest
    try:
        yield
    finally:
        server._script_text, server._script_sha = before


@contextmanager
def instead_of(owner: Any, name: str, replacement: Any) -> Iterator[None]:
    """*owner*'s *name* is *replacement*."""
    before = getattr(owner, name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, before)


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

MUTATIONS = (
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
        "a lease is fenced", lambda: lua("prelude", LEASED, "header and header.fence"), (0, 2)
    ),
    Mutation(
        "a fence is more than a counter",
        lambda: lua("prelude", LEASED, f"header and {COUNTER % 'header.'} == {COUNTER % ''}"),
        (2, 3),
    ),
    Mutation("requests are written down before they are sent", _no_write_ahead),
    Mutation("a request keeps its key", _random_keys),
    Mutation("a request without an answer is not given up", _drops_on_timeout),
    Mutation("no key is sent after 20 hours", _keys_for_ever),
    Mutation("an error that is replayed is final", _stored_errors_are_retried),
    Mutation(
        "nothing is added without having looked",
        lambda: instead_of(flush, "_must_fetch", _fetches_once),
        (2, 3),
    ),
    Mutation("invoices are listed before one is made or a period ends", _no_listing, (2, 3)),
    Mutation("an invoice that is gone gets a successor of its own key", _no_generation, (1, 3)),
    Mutation("of a doubled line one goes", _doubles_stay, (6,)),
    Mutation(
        "a period is sealed by what its invoice says",
        lambda: instead_of(carry_forward, "residuals", lambda *_: {}),
        (1,),
    ),
    Mutation(
        "what is left goes to a period that is open",
        lambda: lua("seal", "landing(following(period), ARGV[7])", "following(period)"),
        (1, 3),
    ),
    Mutation(
        "what is left raises the version of the period that it goes to",
        lambda: lua("seal", f"redis.call('HSET', part(target), {RAISED})", ""),
        (1,),
    ),
    Mutation(
        "no flush begins a month that is forgotten",
        lambda: lua("acquire", "not before and not takes_usage(period, ARGV[6])", "false"),
    ),
    Mutation("a request without an answer may still arrive", _no_doubt, (6,)),
    Mutation("nothing is finalized while a request may still arrive", _no_quiet_time, (6,)),
    Mutation(
        "an old intent to finalize is decided anew",
        lambda: instead_of(
            FlushExecution, "_max_age_ms", lambda execution, _: execution.context.policy.key_ttl_ms
        ),
        (1,),
    ),
    Mutation(
        "a deletion is decided anew when it is resumed",
        lambda: instead_of(RequestBatch, "deletes", False),
        (1,),
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
        (6,),
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
        (2, 3),
    ),
    Mutation(
        "a hold for lost usage is placed by the lease's worker",
        lambda: instead_of(rewind_steps, "_commit", _nothing),
    ),
    Mutation("Stripe reminds the ledger of a period it has lost", _no_recovery, (2, 3)),
    Mutation(
        "a draft is looked at once more when a request was given up",
        lambda: lua("prelude", ", 'look_again_ms', now + ms", ""),
        (6,),
    ),
    Mutation(
        "an archived price bills no new line",
        lambda: instead_of(requests._LineSerializer, "_is_billable", lambda *_: True),
    ),
    Mutation(
        "an amount of ours is read back as its quantity",
        _unmarked_amounts,
    ),
    Mutation("other people's lines take room", _room_for_all, (5,)),
    Mutation("a rewound server is noticed", _unnoticed_rewind, (2, 3)),
)


async def schedules_until_noticed(
    simulation: Simulation, mutation: Mutation, limit: int
) -> tuple[int, str] | None:
    """Return how many schedules it took to notice that the protection is off, and the failure; None if not noticed."""
    tried = 0
    with mutation.off():
        for seed in range(10_000_000):
            mode = seed % len(MODES)
            if mode not in mutation.modes:
                continue
            figures = Figures()
            await simulation.schedule(seed, figures, MODES[mode])
            tried += 1
            if figures.failures:
                seen = figures.failures[seed]
                if seen.startswith(("AttributeError", "NameError", "TypeError")):
                    raise RuntimeError(f"{mutation.name!r} is broken itself: {seen}")
                return tried, seen
            if tried >= limit:
                return None
    return None


async def main() -> int:
    """Return the number of protections whose absence was not noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    missed = 0
    async with open_simulation() as simulation:
        for mutation in MUTATIONS:
            if options.only not in mutation.name:
                continue
            found = await schedules_until_noticed(simulation, mutation, options.limit)
            missed += found is None
            print(
                f"{'MISSED' if found is None else found[0]:>6}  {mutation.name}: {(found or (0, ''))[1][:110]}",
                flush=True,
            )
    return missed


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sys.exit(1 if asyncio.run(main()) else 0)
