"""Every Redis key of the ledger: its type, what it holds, how long it lives.

All keys of a customer, and the due-set that the customer is due in, carry one hash tag ``{bNN}``: they
share a slot, so that counting usage and marking it due are one step on a cluster as well. The Lua
scripts are given the customer's key and build the others from it; ``tests/billing/ledger/test_keys.py``
holds the two spellings together.
"""

from typing import NewType
from zlib import crc32

from billing.usage import CustomerId, Period

Key = NewType("Key", str)

SHARDS = 64
"""Fixed for the life of a ledger: it decides where a customer's keys are."""


def shard_of(customer: CustomerId) -> int:
    """Which shard *customer*'s keys are in."""
    return crc32(customer.encode()) % SHARDS


def shards() -> Key:
    """STRING, for ever: how many shards this ledger was begun with."""
    return Key("ledger:shards")


def compared() -> Key:
    """HASH, for ever: shard → ms at which its open periods were last to be compared with Stripe."""
    return Key("ledger:compared")


def epoch(shard: int) -> Key:
    """HASH, for ever: ``epoch``, the ``server`` it belongs to, ``since_ms``."""
    return Key(f"{_tag(shard)}:epoch")


def due(shard: int) -> Key:
    """ZSET, for ever: ``customer|period`` → ms at which a worker looks at it."""
    return Key(f"{_tag(shard)}:due")


def first(shard: int) -> Key:
    """ZSET, for ever: ``customer|period`` of those due before the others → ms at which to look; a hint."""
    return Key(f"{_tag(shard)}:first")


def untold(shard: int) -> Key:
    """ZSET, for ever: ``customer|period`` → ms since when it has usage that Stripe has not been told of."""
    return Key(f"{_tag(shard)}:untold")


def parked(shard: int) -> Key:
    """ZSET, for ever: ``customer|period`` of those that Stripe refused for good → ms since when."""
    return Key(f"{_tag(shard)}:parked")


def held(shard: int) -> Key:
    """ZSET, for ever: customer whose billing is held → ms since when."""
    return Key(f"{_tag(shard)}:held")


def open_periods(shard: int) -> Key:
    """ZSET, for ever: ``customer|period`` of every open period → ms at which it ends."""
    return Key(f"{_tag(shard)}:open")


def syncs(shard: int, status: str) -> Key:
    """ZSET, for ever: ``customer|number`` of the remembered syncs in *status* → ms of the request."""
    return Key(f"{_tag(shard)}:syncs:{status}")


def customer(customer: CustomerId) -> Key:
    """HASH, for ever: ``currency``, ``hold``, ``held:<about>``, ``ids`` (shape of the id table), counters of syncs and adjustments."""
    return Key(f"{_tag(shard_of(customer))}:{customer}")


def periods(customer_id: CustomerId) -> Key:
    """ZSET, for ever: period → ms until which it is kept, ``inf`` until it is sealed."""
    return Key(f"{customer(customer_id)}:periods")


def ids(customer_id: CustomerId, generation: int, bucket: int) -> Key:
    """HASH of about 40: 12-byte digest of a delta's id → 4-byte hash of its content.

    A generation is six weeks; its ids live until the following one has ended.
    """
    return Key(f"{customer(customer_id)}:ids:{generation}:{bucket}")


def sync(customer_id: CustomerId, number: int) -> Key:
    """HASH: one sync; the oldest goes when a customer has more than are remembered."""
    return Key(f"{customer(customer_id)}:sync:{number}")


def holds(customer_id: CustomerId) -> Key:
    """LIST: ``since_ms json`` of the holds that wait until the one that stands is released, oldest first."""
    return Key(f"{customer(customer_id)}:holds")


def adjustments(customer_id: CustomerId) -> Key:
    """HASH, for ever: number → ``period at_ms json`` of each correction."""
    return Key(f"{customer(customer_id)}:adjustments")


def adjusted(customer_id: CustomerId) -> Key:
    """HASH, for ever: a caller's idempotency key → number of the correction it made."""
    return Key(f"{customer(customer_id)}:adjusted")


def audit(customer_id: CustomerId | None) -> Key:
    """STREAM, for ever: what Support did about a customer; None: about nobody in particular."""
    return Key(f"{customer(customer_id) if customer_id else '{audit}'}:audit")


def audit_ends(customer_id: CustomerId | None) -> Key:
    """HASH, for ever: id of an entry in the audit log → how that act ended, as JSON."""
    return Key(f"{audit(customer_id)}:ends")


def audit_keys(customer_id: CustomerId | None) -> Key:
    """HASH, for ever: a caller's idempotency key → ``entry digest`` of the act it began."""
    return Key(f"{audit(customer_id)}:keys")


def period(customer_id: CustomerId, month: Period) -> Key:
    """HASH: the period's header. It and the keys below go a configurable time after sealing."""
    return Key(f"{customer(customer_id)}:{month}")


def totals(customer_id: CustomerId, month: Period) -> Key:
    """HASH: line → ``price quantity``, the quantity absolute and in plain notation."""
    return Key(f"{period(customer_id, month)}:totals")


def breakdown(customer_id: CustomerId, month: Period, dimension: str) -> Key:
    r"""HASH: ``line\0value`` → quantity; *dimension* is app, region or organization."""
    return Key(f"{period(customer_id, month)}:{dimension}")


def lines(customer_id: CustomerId, month: Period) -> Key:
    """STRING: JSON of our lines as Stripe last confirmed them."""
    return Key(f"{period(customer_id, month)}:lines")


def flight(customer_id: CustomerId, month: Period) -> Key:
    """HASH, while a flush is under way: ``flight`` → JSON, index of each request that is done → 1."""
    return Key(f"{period(customer_id, month)}:flight")


def inbox_counter() -> Key:
    """STRING, for ever: how many of Stripe's events were received; the order of the lists."""
    return Key("{inbox}:n")


def inbox_due() -> Key:
    """ZSET, for ever: subject (the object that events are about) → ms from which it may be claimed."""
    return Key("{inbox}:due")


def inbox_cursor() -> Key:
    """STRING, for ever: the event up to which the sweep has taken in everything."""
    return Key("{inbox}:cursor")


def inbox_record(event: str) -> Key:
    """HASH: one event; expires a configurable time after it is done."""
    return Key("{inbox}:e:" + event)


def inbox_list(status: str) -> Key:
    """ZSET, bounded but for PENDING: id → number of receipt, of the events in *status*."""
    return Key("{inbox}:s:" + status)


def inbox_waiting(subject: str) -> Key:
    """SET, until they are done: the events of *subject*."""
    return Key("{inbox}:w:" + subject)


def _tag(shard: int) -> str:
    return f"{{b{shard:02}}}"
