"""Every Redis key of the ledger: its type, its content, its lifetime.

All keys of a customer, and the due set of its shard, share the hash tag ``{bNN}`` and so one
cluster slot: recording usage and marking it due is one atomic step on a cluster too. The Lua
scripts receive the customer's key and derive the others from it;
``tests/billing/ledger/test_keys.py`` checks that both spellings agree.
"""

from typing import NewType
from zlib import crc32

from billing.usage import CustomerId, Period

Key = NewType("Key", str)

SHARDS = 64
"""Fixed for the life of a ledger, because it determines the location of a customer's keys."""


def shard_of(customer: CustomerId) -> int:
    """Return the shard that holds *customer*'s keys."""
    return crc32(customer.encode()) % SHARDS


def parse_member(raw: bytes) -> tuple[CustomerId, Period]:
    """Parse a member ``customer|period`` of a shard's set."""
    customer_id, _, month = raw.decode().rpartition("|")
    return CustomerId(customer_id), Period.parse(month)


def shards() -> Key:
    """STRING, permanent: number of shards the ledger was created with."""
    return Key("ledger:shards")


def replica_marker() -> Key:
    """STRING, permanent: written before each wait for the replicas."""
    return Key("ledger:replicas")


def last_reconciled() -> Key:
    """HASH, permanent: shard → time (ms) at which its open periods were last reconciled with Stripe."""
    return Key("ledger:compared")


def epoch(shard: int) -> Key:
    """HASH, permanent: ``epoch``, the ``server`` it belongs to, ``since_ms``."""
    return Key(f"{_hash_tag(shard)}:epoch")


def due(shard: int) -> Key:
    """ZSET, permanent: ``customer|period`` → time (ms) at which a worker flushes it."""
    return Key(f"{_hash_tag(shard)}:due")


def priority(shard: int) -> Key:
    """ZSET, permanent: ``customer|period`` of priority flushes → time (ms) they are due; a hint."""
    return Key(f"{_hash_tag(shard)}:first")


def unsynced(shard: int) -> Key:
    """ZSET, permanent: ``customer|period`` → time (ms) of its oldest usage not yet sent to Stripe."""
    return Key(f"{_hash_tag(shard)}:untold")


def unbillable(shard: int) -> Key:
    """ZSET, permanent: ``customer|period`` that a deleted customer cannot be billed → time (ms) it was parked."""
    return Key(f"{_hash_tag(shard)}:unbillable")


def parked(shard: int) -> Key:
    """ZSET, permanent: ``customer|period`` of each parked period → time (ms) it was parked."""
    return Key(f"{_hash_tag(shard)}:parked")


def on_hold(shard: int) -> Key:
    """ZSET, permanent: customer with an active hold → time (ms) at which the hold began."""
    return Key(f"{_hash_tag(shard)}:held")


def rewound(shard: int) -> Key:
    """ZSET, permanent: customer of whom the ledger has lost usage that an invoice shows → time (ms) of its discovery."""
    return Key(f"{_hash_tag(shard)}:rewound")


def books(shard: int) -> Key:
    """HASH, permanent, empty while all is well: ``customer|period|kind`` → ledger minus Stripe in minor units."""
    return Key(f"{_hash_tag(shard)}:books")


def book_sums(shard: int) -> Key:
    """HASH, permanent: currency → sum of the shard's ``books`` in minor units."""
    return Key(f"{_hash_tag(shard)}:books:sums")


def open_periods(shard: int) -> Key:
    """ZSET, permanent: ``customer|period`` of every open period of customers without lost usage → time (ms) at which it ends."""
    return Key(f"{_hash_tag(shard)}:open")


def syncs_by_status(shard: int, status: str) -> Key:
    """ZSET, permanent: ``customer|number`` of the remembered syncs in *status* → time (ms) requested."""
    return Key(f"{_hash_tag(shard)}:syncs:{status}")


def customer(customer: CustomerId) -> Key:
    """HASH, permanent: the customer's own fields.

    ``currency``, ``currency_rank`` (of its source), ``hold``, ``held:<cause>``, ``ids`` (shape of the id
    table), counters of syncs and adjustments.
    """
    return Key(f"{_hash_tag(shard_of(customer))}:{customer}")


def periods(customer_id: CustomerId) -> Key:
    """ZSET, permanent: period → time (ms) until which it is retained, ``inf`` until it is sealed."""
    return Key(f"{customer(customer_id)}:periods")


def delta_ids(customer_id: CustomerId, generation: int, bucket: int) -> Key:
    """HASH of about 40 fields: 12-byte digest of a delta's id → 4-byte hash of its content.

    A generation is six weeks; its ids expire when the next one ends.
    """
    return Key(f"{customer(customer_id)}:ids:{generation}:{bucket}")


def sync(customer_id: CustomerId, number: int) -> Key:
    """HASH: one sync; deleted when the customer has more syncs than the history holds."""
    return Key(f"{customer(customer_id)}:sync:{number}")


def queued_holds(customer_id: CustomerId) -> Key:
    """LIST: ``since_ms json`` of the holds that wait for the release of the active one, oldest first."""
    return Key(f"{customer(customer_id)}:holds")


def adjustments(customer_id: CustomerId) -> Key:
    """HASH, permanent: number → ``period at_ms json`` of each adjustment."""
    return Key(f"{customer(customer_id)}:adjustments")


def adjustment_keys(customer_id: CustomerId) -> Key:
    """HASH, permanent: idempotency key → number of the adjustment it created."""
    return Key(f"{customer(customer_id)}:adjusted")


def audit(customer_id: CustomerId | None) -> Key:
    """STREAM, permanent: audit log of actions about a customer; None: about no particular customer."""
    return Key(f"{customer(customer_id) if customer_id else '{audit}'}:audit")


def audit_ends(customer_id: CustomerId | None) -> Key:
    """HASH, permanent: id of an audit entry → outcome of the action, as JSON."""
    return Key(f"{audit(customer_id)}:ends")


def audit_keys(customer_id: CustomerId | None) -> Key:
    """HASH, permanent: idempotency key → ``entry digest`` of the action it started."""
    return Key(f"{audit(customer_id)}:keys")


def period(customer_id: CustomerId, month: Period) -> Key:
    """HASH: the period's header. It and the keys below expire a configurable time after sealing."""
    return Key(f"{customer(customer_id)}:{month}")


def totals(customer_id: CustomerId, month: Period) -> Key:
    """HASH: line → ``price quantity``, the quantity absolute and in plain notation."""
    return Key(f"{period(customer_id, month)}:totals")


def breakdown(customer_id: CustomerId, month: Period, dimension: str) -> Key:
    r"""HASH: ``line\0value`` → quantity; *dimension* is app, region or organization."""
    return Key(f"{period(customer_id, month)}:{dimension}")


def lines(customer_id: CustomerId, month: Period) -> Key:
    """STRING: JSON of our invoice lines as last confirmed by Stripe."""
    return Key(f"{period(customer_id, month)}:lines")


def request_batch(customer_id: CustomerId, month: Period) -> Key:
    """HASH, during a flush: ``flight`` → the request batch as JSON, index of a completed request → 1."""
    return Key(f"{period(customer_id, month)}:flight")


def inbox_counter() -> Key:
    """STRING, permanent: number of Stripe events received; defines the order of the lists."""
    return Key("{inbox}:n")


def inbox_due() -> Key:
    """ZSET, permanent: subject (the object of the events) → time (ms) from which it may be claimed."""
    return Key("{inbox}:due")


def inbox_cursor() -> Key:
    """STRING, permanent: the event up to which the poll has received everything."""
    return Key("{inbox}:cursor")


def inbox_backlog() -> Key:
    """STRING, after the cursor was lost: the event before which the poll has not received everything."""
    return Key("{inbox}:backlog")


def inbox_record(event: str) -> Key:
    """HASH: one event; expires a configurable time after it is done."""
    return Key("{inbox}:e:" + event)


def inbox_list(status: str) -> Key:
    """ZSET, bounded except for PENDING: event id → receipt number, of the events in *status*."""
    return Key("{inbox}:s:" + status)


def inbox_waiting(subject: str) -> Key:
    """SET: the events of *subject* that are not done."""
    return Key("{inbox}:w:" + subject)


def _hash_tag(shard: int) -> str:
    return f"{{b{shard:02}}}"
