"""How long things last in the read cache, and how much of it a process keeps."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How long things last, in seconds, and how much the process may keep, in bytes.

    A value is *fresh*, unless its entry says for how long; then *usable* while one reader refreshes
    it, until three times as old at least; then known *on_error*, served as STALE when Stripe does not
    answer within *patience*. Absence is believed for *absent* seconds.

    Changes come by webhook, at once, and by the sweep for events, within ten minutes. Growing old is
    for what both have missed, and costs a read that Stripe rations.
    """

    fresh: float = 300
    usable: float = 180
    on_error: float = 3600
    absent: float = 5
    jitter: float = 0.1
    lease: float = 10
    patience: float = 4
    failure_pause: float = 1
    write_intent: float = 60
    process_bytes: int = 64 << 20
