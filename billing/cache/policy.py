"""Lifetimes of cached values, and the memory limit of a process."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Lifetimes in seconds, and the size of the process's local cache in bytes.

    A value is fresh for *fresh_ttl*, unless its entry has its own; then usable, while one reader
    refreshes it, until *usable_ttl* or three times its fresh lifetime if that is longer. Until
    *stale_if_error_ttl* it is served as STALE when Stripe does not answer within *load_timeout*.
    Absence is believed for *absent_ttl*.

    Webhooks report changes at once, and the poll for undelivered events within ten minutes. The lifetimes
    are for changes that both have missed, and a refresh costs a read that Stripe rations.
    """

    fresh_ttl: float = 300
    usable_ttl: float = 180
    stale_if_error_ttl: float = 3600
    absent_ttl: float = 5
    jitter: float = 0.1
    load_lock_ttl: float = 10
    load_timeout: float = 4
    failure_cooldown: float = 1
    write_intent_ttl: float = 60
    local_bytes: int = 64 << 20
