"""Syncs: one flush of one customer's usage to Stripe, requested or routine.

The ledger's scripts write them (``request_sync``, ``acquire``, ``commit``, ``release``), in the
same step as the flush that they describe; this module reads them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain

from redis.asyncio import Redis, RedisCluster

from billing.ledger import keys
from billing.pagination import Page
from billing.redis_reply import awaited, ledger_errors
from billing.usage import CustomerId, Period

UNAVAILABLE_MESSAGE = "The record of syncs cannot be read just now; try again."


class SyncStatus(StrEnum):
    """Current status of a sync."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class SyncFailure:
    """*code* for programs, *message* for people, *request_id* for a ticket to Stripe."""

    code: str
    message: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class SyncOutcome:
    """The result of one run of a flush for its sync; the counts are added to those of earlier runs.

    SUCCEEDED and FAILED end the sync; with any other status the next run continues it.
    """

    status: SyncStatus
    lines_added: int = 0
    lines_updated: int = 0
    lines_removed: int = 0
    stripe_calls: int = 0
    invoice: str | None = None
    failure: SyncFailure | None = None


@dataclass(frozen=True, slots=True)
class Sync:
    """A sync of *customer*'s *period*.

    *trigger* is one of the contract's SyncTrigger. *by* is the token subject that requested it,
    None for a routine sync. Times are in ms. *deltas* is the number of recorded deltas that it sent
    to Stripe.
    """

    id: str
    customer: CustomerId
    period: Period
    status: SyncStatus
    trigger: str
    by: str | None
    requested_ms: int
    started_ms: int | None
    finished_ms: int | None
    next_attempt_ms: int | None
    attempts: int
    deltas: int
    lines_added: int
    lines_updated: int
    lines_removed: int
    stripe_calls: int
    invoice: str | None
    failure: SyncFailure | None


class Syncs:
    """The remembered syncs, newest first. Every method may raise LedgerUnavailable."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis = redis

    async def get(self, sync_id: str) -> Sync | None:
        """Return the sync with this id; None if there is none or it is no longer remembered."""
        return (await self.get_many([sync_id]))[0]

    async def get_many(self, ids: Sequence[str]) -> list[Sync | None]:
        """Return the sync of each of *ids*, in their order."""
        parsed = [_parse_id(sync_id) for sync_id in ids]
        with ledger_errors(UNAVAILABLE_MESSAGE):
            async with self._redis.pipeline(transaction=False) as pipeline:
                for customer_and_number in filter(None, parsed):
                    pipeline.hgetall(keys.sync(*customer_and_number))
                hashes = iter(await pipeline.execute())
        return [
            decode_sync(*customer_and_number, raw)
            if customer_and_number and (raw := next(hashes))
            else None
            for customer_and_number in parsed
        ]

    async def latest(self, customer: CustomerId) -> Sync | None:
        """Return the last sync of *customer*."""
        count = await self._count(customer)
        return await self.get(sync_id(customer, count)) if count else None

    async def page(
        self,
        first: int,
        after: str | None = None,
        *,
        status: SyncStatus | None = None,
        customer: CustomerId | None = None,
    ) -> Page[Sync]:
        """Return at most *first* syncs requested before the one with id *after*."""
        statuses = [status] if status else list(SyncStatus)
        last = await self.get(after) if after else None
        if after and last is None:
            return Page((), has_more=False)
        if customer:
            return await self._of_customer(customer, first, last, statuses)
        newest = await self._newest(first + 1, last, statuses)
        return Page.from_items([sync for sync in await self.get_many(newest) if sync], first)

    async def _of_customer(
        self,
        customer: CustomerId,
        first: int,
        last: Sync | None,
        statuses: Sequence[SyncStatus],
    ) -> Page[Sync]:
        highest = _number(last.id) - 1 if last else await self._count(customer)
        syncs: list[Sync] = []
        # Purged syncs have lower numbers than remembered ones, so the first gap is the end.
        while highest > 0 and len(syncs) <= first:
            numbers = range(highest, max(0, highest - first - 1), -1)
            batch = await self.get_many([sync_id(customer, number) for number in numbers])
            syncs += [sync for sync in batch if sync and sync.status in statuses]
            highest = numbers[-1] - 1 if all(batch) else 0
        return Page.from_items(syncs, first)

    async def _count(self, customer: CustomerId) -> int:
        """Return the number of syncs *customer* has had."""
        with ledger_errors(UNAVAILABLE_MESSAGE):
            return int(await awaited(self._redis.hget(keys.customer(customer), "syncs")) or 0)

    async def _newest(
        self,
        count: int,
        last: Sync | None,
        statuses: Sequence[SyncStatus],
    ) -> list[str]:
        """Return the ids of the newest *count* syncs before *last*, over every shard."""
        ceiling = last.requested_ms if last else "+inf"
        lists = [
            keys.syncs_by_status(shard, status)
            for shard in range(keys.SHARDS)
            for status in statuses
        ]
        # Syncs requested in the same millisecond as the last are distinguished by id.
        limits = (ceiling, "-inf", 0, count + 50)
        with ledger_errors(UNAVAILABLE_MESSAGE):
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key in lists:
                    pipeline.zrevrangebyscore(key, *limits, withscores=True)
                pages = await pipeline.execute()
        ranked = sorted(
            ((int(score), _member_id(member)) for member, score in chain.from_iterable(pages)),
            reverse=True,
        )
        if last:
            ranked = [entry for entry in ranked if entry < (last.requested_ms, last.id)]
        return [sync_id for _, sync_id in ranked[:count]]


def sync_id(customer: CustomerId, number: int) -> str:
    """``sync_<customer>_<number>``; the customer, and so the slot, can be parsed from it."""
    return f"sync_{customer.removeprefix('cus_')}_{number}"


def _parse_id(sync_id: str) -> tuple[CustomerId, int] | None:
    customer, _, number = sync_id.removeprefix("sync_").rpartition("_")
    if not (sync_id.startswith("sync_") and customer and number.isdecimal() and number.isascii()):
        return None
    return CustomerId(f"cus_{customer}"), int(number)


def _number(sync_id: str) -> int:
    return int(sync_id.rpartition("_")[2])


def _member_id(member: bytes) -> str:
    customer, _, number = member.decode().rpartition("|")
    return sync_id(CustomerId(customer), int(number))


def decode_sync(customer: CustomerId, number: int, raw: Mapping[bytes, bytes]) -> Sync:
    """Decode a sync from its hash *raw*."""
    fields = {name.decode(): value.decode() for name, value in raw.items()}

    def count(name: str) -> int:
        return int(fields.get(name, 0))

    def optional_ms(name: str) -> int | None:
        return int(fields[name]) if name in fields else None

    failure = None
    if "failure_code" in fields:
        failure = SyncFailure(
            fields["failure_code"], fields["failure_message"], fields["failure_request"] or None
        )
    return Sync(
        id=sync_id(customer, number),
        customer=customer,
        period=Period.parse(fields["period"]),
        status=SyncStatus(fields["status"]),
        trigger=fields["trigger"],
        by=fields["by"] or None,
        requested_ms=count("requested_ms"),
        started_ms=optional_ms("started_ms"),
        finished_ms=optional_ms("finished_ms"),
        next_attempt_ms=optional_ms("next_attempt_ms"),
        attempts=count("attempts"),
        deltas=count("deltas"),
        lines_added=count("lines_added"),
        lines_updated=count("lines_updated"),
        lines_removed=count("lines_removed"),
        stripe_calls=count("stripe_calls"),
        invoice=fields.get("invoice"),
        failure=failure,
    )
