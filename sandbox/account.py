"""One Stripe account, and the unit of work in which every change to it is made."""

import random
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from sandbox.clock import Clock
from sandbox.errors import missing, refuse
from sandbox.settings import Settings
from sandbox.state import Change, Record, State

API_VERSION: Final = "2026-10-28.endive"
ACCOUNT_ID: Final = "acct_sandbox"
_LETTERS: Final = string.ascii_letters + string.digits
NOUNS: Final = {
    "customers": "customer",
    "invoices": "invoice",
    "invoiceitems": "invoiceitem",
    "products": "product",
    "prices": "price",
    "payment_methods": "PaymentMethod",
    "credit_notes": "credit note",
    "events": "event",
    "webhook_endpoints": "webhook endpoint",
    "invoice_payments": "invoice payment",
    "balance_transactions": "customer balance transaction",
}
PREFIXES: Final = {
    "customers": "cus_",
    "invoices": "in_1",
    "products": "prod_",
    "prices": "price_1",
    "payment_methods": "pm_1",
    "credit_notes": "cn_1",
    "webhook_endpoints": "we_1",
    "invoice_payments": "inpay_1",
    "balance_transactions": "cbtxn_1",
    "events": "evt_1",
    "portal_sessions": "bps_1",
    "deliveries": "wd_1",
}


@dataclass(slots=True)
class Account:
    """The state, the time and the dice that all parts share; ``base_url`` is where we are reached."""

    state: State
    clock: Clock
    seed: int = 0
    base_url: str = ""
    settings: Settings = field(default_factory=Settings)
    on_delivery: Callable[[Record], None] = lambda _: None
    dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        """Take up the clock and the dice where the state left them."""
        kept = self.state.rows["meta"].get("account", {"id": "account", "starts": 0, "offset": 0.0})
        starts = kept["starts"] + 1
        self.clock.offset = kept["offset"]
        self.dice = random.Random(f"{self.seed}:{starts}")  # noqa: S311
        self.state.commit([("meta", "account", kept | {"starts": starts})])

    def advance(self, seconds: float) -> None:
        """Move the clock and remember that across restarts."""
        self.clock.advance(seconds)
        kept = self.state.rows["meta"]["account"]
        self.state.commit([("meta", "account", kept | {"offset": self.clock.offset})])

    def new_id(self, prefix: str) -> str:
        """Draw an id that looks like Stripe's; the same seed draws the same ids."""
        return prefix + "".join(self.dice.choices(_LETTERS, k=24))


class Unit:
    """What one request reads and writes: all of it or nothing.

    *request* is the request's id and *key* its idempotency key; events quote both. Work that no
    request asked for has neither, a person in the Dashboard has no key.
    """

    def __init__(
        self, account: Account, request: str | None = None, key: str | None = None
    ) -> None:
        self.account = account
        self.request = request
        self.key = key
        self._staged: dict[tuple[str, str], Record | None] = {}

    @property
    def now(self) -> int:
        """The account's time in whole seconds."""
        return self.account.clock.seconds()

    def find(self, kind: str, object_id: str | None) -> Record | None:
        """Return the record as this unit sees it, or None."""
        if object_id is None:
            return None
        if (kind, object_id) in self._staged:
            return self._staged[kind, object_id]
        return self.account.state.rows[kind].get(object_id)

    def get(self, kind: str, object_id: str, param: str | None = None) -> Record:
        """Return a live record; StripeError 404, or 400 when a *param* named it."""
        record = self.find(kind, object_id)
        if record is None or record.get("deleted"):
            raise missing(NOUNS[kind], object_id, param or "id", 404 if param is None else 400)
        return record

    def new(self, kind: str, record: Record) -> Record:
        """Put a new record, with an id unless it brings one, and its time of creation."""
        object_id = record.pop("id", None) or self.account.new_id(PREFIXES[kind])
        if self.find(kind, object_id) is not None:
            raise refuse(
                f"{NOUNS[kind]} already exists.", code="resource_already_exists", param="id"
            )
        return self.put(kind, {"id": object_id, "created": self.now, **record})

    def put(self, kind: str, record: Record) -> Record:
        """Put a record in place of the one with its id."""
        self._staged[kind, record["id"]] = record
        return record

    def change(self, kind: str, old: Record, **changes: Any) -> Record:
        """Put *old* with *changes*, and tell it as the kind's ``.updated`` event."""
        new = self.put(kind, {**old, **changes})
        noun = {"payment_methods": "payment_method"}.get(kind, kind.removesuffix("s"))
        self.emit(f"{noun}.updated", kind, new, old)
        return new

    def drop(self, kind: str, object_id: str) -> None:
        """Remove a record."""
        self._staged[kind, object_id] = None

    def emit(self, name: str, kind: str, after: Record, before: Record | None = None) -> None:
        """Record the event *name*: *after* is the object then, *before* what an update changed."""
        event: Record = {"type": name, "_kind": kind, "_after": after}
        if before is not None:
            event["_before"] = before
        if self.request is not None:
            event["_request"] = self.request
        if self.key is not None:
            event["_key"] = self.key
        self.new("events", event)

    def discard(self) -> None:
        """Forget what was staged."""
        self._staged.clear()

    def commit(self) -> None:
        """Make it so, and queue every event for the endpoints that selected it, in one step."""
        events = [r for (kind, _), r in self._staged.items() if kind == "events" and r is not None]
        deliveries = [
            self._delivery(event, to) for event in events for to in self.hearers(event["type"])
        ]
        changes: list[Change] = [
            (kind, key, record) for (kind, key), record in self._staged.items()
        ]
        if changes:
            self.account.state.commit(changes)
        self._staged = {}
        for delivery in deliveries:
            self.account.on_delivery(delivery)

    def hearers(self, event: str) -> list[str]:
        """Return the ids of the enabled endpoints that selected this type of event."""
        endpoints = self.account.state.rows["webhook_endpoints"].values()
        return [
            endpoint["id"]
            for endpoint in endpoints
            if endpoint.get("status", "enabled") == "enabled"
            and {"*", event} & set(endpoint["enabled_events"])
        ]

    def _delivery(self, event: Record, endpoint: str) -> Record:
        delivery = {"event": event["id"], "endpoint": endpoint, "attempts": 0}
        return self.new("deliveries", delivery | {"due": self.account.clock.now()})
