"""The log itself: one stream a customer, and one for what is nobody's, in the ledger's Redis; none expires.

An act is begun in the log before it is done and ended there after, so a crash in between leaves an entry
whose outcome nobody knows, never an act without an entry.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from importlib.resources import files
from secrets import token_hex
from typing import cast

import orjson
from redis.asyncio import Redis, RedisCluster

from billing.errors import ErrorCode, Refused
from billing.ledger import keys
from billing.pagination import Page
from billing.redis_reply import ledger_asked, reply
from billing.usage import CustomerId

ENTRY_ID = re.compile(r"\d{1,20}-\d{1,20}", re.ASCII)

AWAY = "The audit log cannot be reached, and nothing is done without it; try again."

Facts = Mapping[str, str | None]
"""What stood before or stands after, by name: ``{"total": "USD 31.00"}``."""


class ActOutcome(StrEnum):
    """How an act ended."""

    DONE = "DONE"
    REFUSED = "REFUSED"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Intent:
    """What somebody is about to do: *by* is the token subject, *action* the mutation's name.

    *customer* is None for what concerns nobody in particular. The same *key* is the same act, if what
    is asked is the same: *about* says what by, action and reason do not.
    """

    customer: CustomerId | None
    by: str
    action: str
    reason: str | None
    before: Facts
    key: str | None = None
    about: str = ""


@dataclass(frozen=True, slots=True)
class Begun:
    """An act that stands in the log; *ended* says that it was done before, under the same key.

    *before* is what stood when it was begun for the first time.
    """

    id: str
    intent: Intent
    key: str
    ended: bool
    before: Facts


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act; *after* is empty unless it is DONE, *refusal* the code of what was REFUSED."""

    id: str
    at_ms: int
    by: str
    action: str
    reason: str | None
    before: Facts
    outcome: ActOutcome
    after: Facts
    refusal: str | None


class AuditLog:
    """Every method may raise LedgerUnavailable."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis = redis
        # A cluster's client can do this too, but is not typed so.
        self._begin = cast("Redis", redis).register_script(
            files("billing.audit").joinpath("scripts/begin.lua").read_text()
        )

    async def begin(self, intent: Intent) -> Begun:
        """Write *intent* down; Refused (IDEMPOTENCY_CONFLICT) when its key began something else."""
        key = (
            intent.key or f"once {token_hex(16)}"
        )  # a command may be sent again after a lost answer
        log, acts = keys.audit(intent.customer), keys.audit_keys(intent.customer)
        with ledger_asked(AWAY):
            entry, new, digest, before = await self._begin(
                [log, acts], [key, _digest(intent), *_said(intent)]
            )
            ended = not new and await reply(self._redis.hexists(_ends(intent), entry))
        if digest.decode() != _digest(intent):
            raise Refused(
                ErrorCode.IDEMPOTENCY_CONFLICT,
                "This idempotency key was used for something else; use a new key for a new act.",
                ("idempotencyKey",),
            )
        return Begun(entry.decode(), intent, key, bool(ended), orjson.loads(before))

    async def finish(self, begun: Begun, after: Facts) -> None:
        """It was done, and *after* is what stands now."""
        await self._end(begun, {"after": dict(after)}, keeps_key=begun.intent.key is not None)

    async def refuse(self, begun: Begun, code: str) -> None:
        """It was not done, for the reason *code*; its key is free for another try."""
        await self._end(begun, {"refusal": code}, keeps_key=False)

    async def page(
        self, customer: CustomerId | None, first: int, after: str | None = None
    ) -> Page[AuditEntry]:
        """At most *first* entries that are older than the one of id *after*, newest first."""
        if after is not None and not ENTRY_ID.fullmatch(after):
            return Page((), has_more=False)
        newest = f"({after}" if after else "+"
        with ledger_asked(AWAY):
            found = await reply(
                self._redis.xrevrange(keys.audit(customer), max=newest, count=first + 1)
            )
            ids = [entry for entry, _ in found]
            ends = await reply(self._redis.hmget(keys.audit_ends(customer), ids)) if ids else []
        entries = [_entry(entry, said, end) for (entry, said), end in zip(found, ends, strict=True)]
        return Page.of(entries, first)

    async def _end(self, begun: Begun, end: Mapping[str, object], *, keeps_key: bool) -> None:
        if begun.ended:
            return
        # Sent together: a refused act that kept its key would look done to whoever tries again.
        with ledger_asked(AWAY):
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hsetnx(_ends(begun.intent), begun.id, orjson.dumps(end).decode())
                if not keeps_key:
                    pipeline.hdel(keys.audit_keys(begun.intent.customer), begun.key)
                await pipeline.execute()


def _said(intent: Intent) -> Sequence[str | bytes]:
    said = [("by", intent.by), ("action", intent.action), ("reason", intent.reason)]
    texts = [text for name, value in said if value is not None for text in (name, value)]
    return [*texts, "before", orjson.dumps(dict(intent.before))]


def _digest(intent: Intent) -> str:
    asked = orjson.dumps([intent.by, intent.action, intent.reason, intent.about])
    return blake2b(asked, digest_size=8).hexdigest()


def _ends(intent: Intent) -> keys.Key:
    return keys.audit_ends(intent.customer)


def _entry(entry_id: bytes, said: Mapping[bytes, bytes], end: bytes | None) -> AuditEntry:
    texts = {name.decode(): text.decode() for name, text in said.items()}
    ended = orjson.loads(end) if end else {}
    outcome = (
        ActOutcome.REFUSED
        if "refusal" in ended
        else ActOutcome.DONE
        if ended
        else ActOutcome.UNKNOWN
    )
    return AuditEntry(
        id=entry_id.decode(),
        at_ms=int(entry_id.partition(b"-")[0]),
        by=texts["by"],
        action=texts["action"],
        reason=texts.get("reason"),
        before=orjson.loads(texts["before"]),
        outcome=outcome,
        after=ended.get("after", {}),
        refusal=ended.get("refusal"),
    )
