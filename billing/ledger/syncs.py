"""Syncs: one flush of one customer's usage to Stripe, requested or routine.

This module requests and reads them. The scripts ``request_sync``, ``acquire``, ``commit`` and
``release`` store them, in the same step as the flush that they describe.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from billing.ledger import keys
from billing.ledger.base import LedgerPart
from billing.ledger.codec import Fields, decode_fields
from billing.ledger.sync_ids import member_id, parse_sync_id, sync_id
from billing.pagination import Page
from billing.usage import CustomerId, Period

MAX_OVERTAKEN = 8  # syncs requested while a routine one runs, which is numbered at its end


class SyncStatus(StrEnum):
    """Current status of a sync."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


class SyncTrigger(StrEnum):
    """Event that caused a sync."""

    ON_DEMAND = "ON_DEMAND"
    PORTAL = "PORTAL"
    INTERVAL = "INTERVAL"
    PERIOD_CLOSE = "PERIOD_CLOSE"
    SUPPORT = "SUPPORT"
    WEBHOOK = "WEBHOOK"


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

    @property
    def position(self) -> tuple[int, int]:
        """Its place among its customer's, by the time of the request, then by its number."""
        return self.requested_ms, int(self.id.rpartition("_")[2])


class Syncs(LedgerPart):
    """The remembered syncs, newest first. Every method may raise LedgerUnavailable."""

    async def request(
        self,
        customer: CustomerId,
        trigger: str,
        *,
        by: str | None = None,
        period: Period | None = None,
    ) -> tuple[Sync, bool]:
        """Queue a sync; also return True if it joined one that was queued already.

        The sync is of *period* unless that is sealed, else of the current period. A running sync is
        not joined, because it may have read the ledger before this request. Workers poll within a
        second; a wake-up makes the run immediate.
        """
        number, joined, raw = await self._server.run_script(
            "request_sync",
            keys.customer(customer),
            trigger,
            by or "",
            self._policy.sync_grace_ms,
            self._policy.sync_history,
            str(period or ""),
        )
        return _decode(customer, int(number), decode_fields(raw)), bool(joined)

    async def get(self, sync_id: str) -> Sync | None:
        """Return the sync with this id; None if there is none or it is no longer remembered."""
        return (await self.get_many([sync_id]))[0]

    async def get_many(self, ids: Sequence[str]) -> list[Sync | None]:
        """Return the sync of each of *ids*, in their order."""
        parsed = [parse_sync_id(sync_id) for sync_id in ids]
        commands = [("HGETALL", keys.sync(*position)) for position in parsed if position]
        hashes = iter(await self._server.execute_all(commands))
        return [
            _decode(*position, fields) if position and (fields := _fields(next(hashes))) else None
            for position in parsed
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
        before = last.position if last else (sys.maxsize, sys.maxsize)
        highest = min(await self._count(customer), before[1] + MAX_OVERTAKEN)
        syncs: list[Sync] = []
        # Purged syncs have lower numbers than remembered ones, so the first gap is the end.
        while highest > 0 and len(syncs) <= first + MAX_OVERTAKEN:
            numbers = range(highest, max(0, highest - first - MAX_OVERTAKEN - 1), -1)
            batch = await self.get_many([sync_id(customer, number) for number in numbers])
            syncs += [s for s in batch if s and s.status in statuses and s.position < before]
            highest = numbers[-1] - 1 if all(batch) else 0
        syncs.sort(key=lambda sync: sync.position, reverse=True)
        return Page.from_items(syncs, first)

    async def _count(self, customer: CustomerId) -> int:
        """Return the number of syncs *customer* has had."""
        return int(await self._server.execute("HGET", keys.customer(customer), "syncs") or 0)

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
        limits = (ceiling, "-inf", "WITHSCORES", "LIMIT", 0, count + 50)
        pages = await self._server.execute_all(
            [("ZREVRANGEBYSCORE", key, *limits) for key in lists]
        )
        ranked = sorted(
            (
                (int(score), member_id(member))
                for page in pages
                for member, score in zip(page[::2], page[1::2], strict=True)
            ),
            reverse=True,
        )
        if last:
            ranked = [entry for entry in ranked if entry < (last.requested_ms, last.id)]
        return [sync_id for _, sync_id in ranked[:count]]


def _fields(raw: Mapping[bytes, bytes]) -> Fields:
    return Fields({name.decode(): value.decode() for name, value in raw.items()})


def _decode(customer: CustomerId, number: int, fields: Fields) -> Sync:
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
        requested_ms=fields.integer("requested_ms"),
        started_ms=fields.optional_integer("started_ms"),
        finished_ms=fields.optional_integer("finished_ms"),
        next_attempt_ms=fields.optional_integer("next_attempt_ms"),
        attempts=fields.integer("attempts"),
        deltas=fields.integer("deltas"),
        lines_added=fields.integer("lines_added"),
        lines_updated=fields.integer("lines_updated"),
        lines_removed=fields.integer("lines_removed"),
        stripe_calls=fields.integer("stripe_calls"),
        invoice=fields.get("invoice"),
        failure=failure,
    )
