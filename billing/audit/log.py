"""The audit log in the ledger's Redis: one stream per customer, and one without; entries stay unless `trim` is called.

An entry is written before its action and completed after it, so a crash in between leaves an entry with
an unknown outcome, never an action without an entry.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from secrets import token_hex
from typing import Any, cast

import orjson
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.client import Pipeline
from redis.asyncio.cluster import ClusterPipeline

from billing.errors import ErrorCode, Refused
from billing.ledger import keys
from billing.ledger.policy import ReplicaAck
from billing.ledger.replication import append_wait, check_wait
from billing.pagination import Page
from billing.redis_clients import awaited, ledger_errors, load_script
from billing.usage import CustomerId

ENTRY_ID = re.compile(r"\d{1,20}-\d{1,20}", re.ASCII)

SCAN_COUNT = 1_000
ERASED = "(erased)"
FREE_TEXT_VALUES = ("hold",)  # the others are ids, amounts and states

UNAVAILABLE_MESSAGE = "The audit log cannot be reached, and nothing is done without it; try again."

Facts = Mapping[str, str | None]
"""Values before or after an action, by name: ``{"total": "USD 31.00"}``."""


class ActionOutcome(StrEnum):
    """Outcome of an audited action."""

    DONE = "DONE"
    REFUSED = "REFUSED"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class ActionIntent:
    """An action to begin: *actor* is the token's subject, *action* the mutation's name.

    *customer* is None if the action concerns no single one. An *idempotency_key* may be repeated only with
    the same actor, action, reason and *parameters* (the encoded rest of the input).
    """

    customer: CustomerId | None
    actor: str
    action: str
    reason: str | None
    before: Facts
    idempotency_key: str | None = None
    parameters: str = ""


@dataclass(frozen=True, slots=True)
class StartedAction:
    """An action with an entry in the log; *completed* is true if it was done before, under the same key.

    *before* are the values when it first began.
    """

    id: str
    intent: ActionIntent
    key: str
    completed: bool
    before: Facts


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One action; *after* is empty unless it is DONE, *refusal* is the error code if it was REFUSED."""

    id: str
    at_ms: int
    actor: str
    action: str
    reason: str | None
    before: Facts
    outcome: ActionOutcome
    after: Facts
    refusal: str | None


class AuditLog:
    """The entries of all actions; every method may raise LedgerUnavailable.

    With *replica_ack* a write is acknowledged once that many replicas have it.
    """

    def __init__(self, redis: Redis | RedisCluster, replica_ack: ReplicaAck | None = None) -> None:
        self._redis = redis
        self._replica_ack = replica_ack
        self._begin_script = load_script(redis, "billing.audit", "begin")
        self._erase_script = load_script(redis, "billing.audit", "erase")
        self._trim_script = load_script(redis, "billing.audit", "trim")

    async def begin(self, intent: ActionIntent) -> StartedAction:
        """Record *intent*; Refused (IDEMPOTENCY_CONFLICT) if its key began another action."""
        # A unique key also without one of the caller's, because redis-py may send the command twice.
        key = intent.idempotency_key or f"once {token_hex(16)}"
        log, by_key = keys.audit(intent.customer), keys.audit_keys(intent.customer)
        with ledger_errors(UNAVAILABLE_MESSAGE):
            entry, new, digest, before = await self._run_begin(
                [log, by_key], [key, _digest(intent), *_stream_fields(intent)]
            )
            completed = not new and await awaited(self._redis.hexists(_outcomes_key(intent), entry))
        if digest.decode() != _digest(intent):
            raise Refused(
                ErrorCode.IDEMPOTENCY_CONFLICT,
                "This idempotency key was used for something else; use a new key for a new action.",
                ("idempotencyKey",),
            )
        return StartedAction(entry.decode(), intent, key, bool(completed), orjson.loads(before))

    async def complete(self, started: StartedAction, after: Facts) -> None:
        """Record that the action was done; *after* are the new values."""
        await self._close_entry(
            started, {"after": dict(after)}, keep_key=started.intent.idempotency_key is not None
        )

    async def refuse(self, started: StartedAction, code: str) -> None:
        """Record that the action was refused with *code*; its key may be used again."""
        await self._close_entry(started, {"refusal": code}, keep_key=False)

    async def page(
        self, customer: CustomerId | None, first: int, after: str | None = None
    ) -> Page[AuditEntry]:
        """At most *first* entries older than the entry *after*, newest first."""
        if after is not None and not ENTRY_ID.fullmatch(after):
            return Page((), has_more=False)
        newest = f"({after}" if after else "+"
        with ledger_errors(UNAVAILABLE_MESSAGE):
            stream = await awaited(
                self._redis.xrevrange(keys.audit(customer), max=newest, count=first + 1)
            )
            ids = [entry_id for entry_id, _ in stream]
            ends = await awaited(self._redis.hmget(keys.audit_ends(customer), ids)) if ids else []
        rows = zip(stream, ends, strict=True)
        entries = [_entry(entry_id, fields, end) for (entry_id, fields), end in rows]
        return Page.from_items(entries, first)

    async def erase(self, started: StartedAction, customer: CustomerId) -> None:
        """Erase free text from all entries of *customer* but *started*: reasons, and what holds said."""
        script_keys = [keys.audit(customer), keys.audit_ends(customer)]
        with ledger_errors(UNAVAILABLE_MESSAGE):
            await self._erase_script(script_keys, [started.id, ERASED, *FREE_TEXT_VALUES])

    async def trim(self, before_ms: int) -> int:
        """Remove all entries from before *before_ms* (ms since 1970); return their number."""
        removed = 0
        with ledger_errors(UNAVAILABLE_MESSAGE):
            async for name in self._redis.scan_iter(match="{*:audit", count=SCAN_COUNT):
                log = name.decode()
                removed += await self._trim_script(
                    [log, f"{log}:ends", f"{log}:keys"], [f"{before_ms}-0"]
                )
        return removed

    async def _close_entry(
        self, started: StartedAction, end: Mapping[str, object], *, keep_key: bool
    ) -> None:
        if started.completed:
            return
        # In one pipeline: with its key left in place, a refused action would seem done to a retry.
        with ledger_errors(UNAVAILABLE_MESSAGE):
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hsetnx(
                    _outcomes_key(started.intent), started.id, orjson.dumps(end).decode()
                )
                if not keep_key:
                    pipeline.hdel(keys.audit_keys(started.intent.customer), started.key)
                await self._execute(pipeline)

    async def _run_begin(self, script_keys: list[keys.Key], args: Sequence[str | bytes]) -> Any:
        if self._replica_ack is None:
            return await self._begin_script(script_keys, args)
        async with cast("Redis", self._redis).pipeline(transaction=False) as pipeline:
            await self._begin_script(script_keys, args, client=pipeline)
            return (await self._execute(pipeline))[0]

    async def _execute(self, pipeline: Pipeline | ClusterPipeline) -> list[Any]:
        """Execute *pipeline*, and wait for the replicas if the ledger has any to wait for."""
        if self._replica_ack is None:
            return list(await pipeline.execute())
        append_wait(pipeline, self._replica_ack)
        return check_wait(await pipeline.execute(), self._replica_ack)


def _stream_fields(intent: ActionIntent) -> Sequence[str | bytes]:
    fields = [("by", intent.actor), ("action", intent.action), ("reason", intent.reason)]
    texts = [text for name, value in fields if value is not None for text in (name, value)]
    return [*texts, "before", orjson.dumps(dict(intent.before))]


def _digest(intent: ActionIntent) -> str:
    request = orjson.dumps([intent.actor, intent.action, intent.reason, intent.parameters])
    return blake2b(request, digest_size=8).hexdigest()


def _outcomes_key(intent: ActionIntent) -> keys.Key:
    return keys.audit_ends(intent.customer)


def _entry(entry_id: bytes, fields: Mapping[bytes, bytes], end: bytes | None) -> AuditEntry:
    texts = {name.decode(): text.decode() for name, text in fields.items()}
    result = orjson.loads(end) if end else {}
    if "refusal" in result:
        outcome = ActionOutcome.REFUSED
    else:
        outcome = ActionOutcome.DONE if result else ActionOutcome.UNKNOWN
    return AuditEntry(
        id=entry_id.decode(),
        at_ms=int(entry_id.partition(b"-")[0]),
        actor=texts["by"],
        action=texts["action"],
        reason=texts.get("reason"),
        before=orjson.loads(texts["before"]),
        outcome=outcome,
        after=result.get("after", {}),
        refusal=result.get("refusal"),
    )
