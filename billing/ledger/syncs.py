"""The record of syncs: one flush of one customer's usage into Stripe, asked for or in its turn.

The ledger's scripts write them (``request_sync``, ``acquire``, ``commit``, ``release``), so that a
sync says what became of the very flush that it stands for; here they are read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain

from redis.asyncio import Redis, RedisCluster

from billing.ledger import keys
from billing.pagination import Page
from billing.redis_reply import ledger_asked, reply
from billing.usage import CustomerId, Period

AWAY = "The record of syncs cannot be read just now; try again."


class SyncStatus(StrEnum):
    """How far a sync has come."""

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
    """What one run of a flush has to say of its sync; the counts are added to those of earlier runs.

    SUCCEEDED and FAILED end the sync; with any other status the next run goes on with it.
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

    *trigger* is one of the contract's SyncTrigger, *by* the token subject that asked, None for a
    sync in its turn. Times are in ms, *deltas* the recorded changes that it told Stripe of.
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
    """The remembered syncs, newest first; every method may raise LedgerUnavailable."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis = redis

    async def get(self, sync_id: str) -> Sync | None:
        """The sync of this id; None when there is none or it is no longer remembered."""
        return (await self.many([sync_id]))[0]

    async def many(self, ids: Sequence[str]) -> list[Sync | None]:
        """The sync of each of *ids*, in their order."""
        places = [_place(each) for each in ids]
        with ledger_asked(AWAY):
            async with self._redis.pipeline(transaction=False) as pipeline:
                for place in filter(None, places):
                    pipeline.hgetall(keys.sync(*place))
                found = iter(await pipeline.execute())
        return [
            sync_of(*place, raw) if place and (raw := next(found)) else None for place in places
        ]

    async def of(self, customer: CustomerId) -> Sync | None:
        """The last sync of *customer*."""
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
        """At most *first* syncs that were asked for before the one of id *after*."""
        statuses = [status] if status else list(SyncStatus)
        last = await self.get(after) if after else None
        if after and last is None:
            return Page((), has_more=False)
        if customer:
            return await self._of_customer(customer, first, last, statuses)
        wanted = await self._newest(first + 1, last, statuses)
        return Page.of([sync for sync in await self.many(wanted) if sync], first)

    async def _of_customer(
        self,
        customer: CustomerId,
        first: int,
        last: Sync | None,
        statuses: Sequence[SyncStatus],
    ) -> Page[Sync]:
        upto = _number(last.id) - 1 if last else await self._count(customer)
        found: list[Sync] = []
        # Forgotten ones lie below the remembered ones, so the first gap is the end.
        while upto > 0 and len(found) <= first:
            numbers = range(upto, max(0, upto - first - 1), -1)
            batch = await self.many([sync_id(customer, number) for number in numbers])
            found += [sync for sync in batch if sync and sync.status in statuses]
            upto = numbers[-1] - 1 if all(batch) else 0
        return Page.of(found, first)

    async def _count(self, customer: CustomerId) -> int:
        """How many syncs *customer* has had."""
        with ledger_asked(AWAY):
            return int(await reply(self._redis.hget(keys.customer(customer), "syncs")) or 0)

    async def _newest(
        self,
        count: int,
        last: Sync | None,
        statuses: Sequence[SyncStatus],
    ) -> list[str]:
        """Ids of the newest *count* before *last*, over every shard."""
        ceiling = last.requested_ms if last else "+inf"
        lists = [keys.syncs(shard, status) for shard in range(keys.SHARDS) for status in statuses]
        # Those asked for in the same millisecond as the last are told apart by their id.
        span = (ceiling, "-inf", 0, count + 50)
        with ledger_asked(AWAY):
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key in lists:
                    pipeline.zrevrangebyscore(key, *span, withscores=True)
                found = await pipeline.execute()
        ranked = sorted(
            ((int(score), _id_of(member)) for member, score in chain.from_iterable(found)),
            reverse=True,
        )
        if last:
            ranked = [each for each in ranked if each < (last.requested_ms, last.id)]
        return [sync_id for _, sync_id in ranked[:count]]


def sync_id(customer: CustomerId, number: int) -> str:
    """``sync_<customer>_<number>``: the customer, and with it the slot, can be read out of it."""
    return f"sync_{customer.removeprefix('cus_')}_{number}"


def _place(sync_id: str) -> tuple[CustomerId, int] | None:
    customer, _, number = sync_id.removeprefix("sync_").rpartition("_")
    if not (sync_id.startswith("sync_") and customer and number.isdecimal() and number.isascii()):
        return None
    return CustomerId(f"cus_{customer}"), int(number)


def _number(sync_id: str) -> int:
    return int(sync_id.rpartition("_")[2])


def _id_of(member: bytes) -> str:
    customer, _, number = member.decode().rpartition("|")
    return sync_id(CustomerId(customer), int(number))


def sync_of(customer: CustomerId, number: int, raw: Mapping[bytes, bytes]) -> Sync:
    """The sync that the ledger's scripts keep as *raw*."""
    fields = {name.decode(): value.decode() for name, value in raw.items()}

    def count(name: str) -> int:
        return int(fields.get(name, 0))

    def moment(name: str) -> int | None:
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
        started_ms=moment("started_ms"),
        finished_ms=moment("finished_ms"),
        next_attempt_ms=moment("next_attempt_ms"),
        attempts=count("attempts"),
        deltas=count("deltas"),
        lines_added=count("lines_added"),
        lines_updated=count("lines_updated"),
        lines_removed=count("lines_removed"),
        stripe_calls=count("stripe_calls"),
        invoice=fields.get("invoice"),
        failure=failure,
    )
