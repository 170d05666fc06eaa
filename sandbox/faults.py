"""Accidents on order: each fault strikes the next *times* matching requests or webhooks."""

from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

ON_REQUEST: Final = {
    "answer_lost_before": "the connection breaks, nothing was done",
    "answer_lost_after": "the work was done and stored, the connection breaks",
    "late_delivery": "the connection breaks; the request arrives `seconds` later",
    "error_500_before": "500, nothing done, nothing stored",
    "error_500_after": "the work was done, the stored answer is a 500",
    "partial_500_after": "half of the lines were applied, the stored answer is a 500",
    "rate_limited": "429 with Stripe-Rate-Limited-Reason `reason`",
    "lock_timeout": "429 lock_timeout without that header; `stored: true` replays it",
    "slow": "takes `seconds` longer",
}
ON_WEBHOOK: Final = {
    "webhook_drop": "never sent; found by delivery_success=false",
    "webhook_duplicate": "sent twice",
    "webhook_delay": "sent `seconds` later by the account's clock",
    "webhook_reorder": "the next `times` events of a kind arrive in reverse, `gap` seconds apart",
    "webhook_forge": "preceded by a forged copy with a wrong signature",
    "old_api_version": "sent in the shape of `version` (2022-11-15)",
}


@dataclass(slots=True)
class Fault:
    """One order. *match* is an endpoint or event type or ``*``; *object* narrows it to an id."""

    id: str
    kind: str
    match: str = "*"
    times: int = 1
    after: int = 0
    object: str = ""
    params: dict[str, Any] = field(default_factory=dict)

    def strikes(self, name: str, objects: str) -> bool:
        """Tell whether this fault strikes, and count it."""
        if self.times <= 0 or self.match not in ("*", name) or self.object not in objects:
            return False
        if self.after > 0:
            self.after -= 1
            return False
        self.times -= 1
        return True


class Faults:
    """The orders that still stand, oldest first."""

    def __init__(self) -> None:
        self.orders: list[Fault] = []
        self._ids = count(1)

    def order(self, kind: str, match: str = "*", times: int = 1, **more: Any) -> str:
        """Add a fault and return its id; ValueError for an unknown kind."""
        if kind not in ON_REQUEST | ON_WEBHOOK:
            raise ValueError(f"unknown fault: {kind}")
        after, narrowed = more.pop("after", 0), more.pop("object", "")
        fault = Fault(f"fault_{next(self._ids)}", kind, match, times, after, narrowed, more)
        self.orders.append(fault)
        return fault.id

    def strike(self, table: dict[str, str], name: str, objects: str) -> Fault | None:
        """Return the first standing fault of *table* that strikes here."""
        for fault in self.orders:
            if fault.kind in table and fault.strikes(name, objects):
                self.orders = [order for order in self.orders if order.times > 0]
                return fault
        return None
