"""One Stripe account: its records, its clock and its dice, and the unit in which it is changed.

A record is a sparse dictionary and is never changed once it has been put: a change puts a new one.
So events keep records instead of copies, and a request that fails has nothing to undo. The file, if
asked for, is a journal: a line a commit, in one write to the kernel, so that it survives SIGKILL
(not a power cut). A torn last line is ignored, and each start rewrites it without its history.
"""

import heapq
import os
import random
import string
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final

import orjson

from sandbox import sdk
from sandbox.errors import missing, refuse
from sandbox.hostility import Settings
from sandbox.kinds import KINDS

Record = dict[str, Any]
Change = tuple[str, str, Record | None]
HOUR: Final = 3600


class Account:
    """All records by kind and id, oldest first. ``base_url`` is where a browser reaches us."""

    def __init__(self, settings: Settings, path: Path | None = None, seed: int = 0) -> None:
        self.settings, self.seed, self.base_url = settings, seed, ""
        self.rows: defaultdict[str, dict[str, Record]] = defaultdict(dict)
        self.waiting: Counter[str] = Counter()
        self.on_delivery: Callable[[Record], None] = lambda _: None
        self._owned: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self._agenda: list[tuple[int, str]] = []
        self._journal: int | None = None
        if path is not None:
            self._load(path)
        kept = self.rows["meta"].get("account", {"starts": 0, "offset": 0.0})
        self.offset: float = kept["offset"]
        self.dice = random.Random(f"{seed}:{kept['starts']}")  # noqa: S311
        self.commit([("meta", "account", kept | {"starts": kept["starts"] + 1})])

    def now(self) -> float:
        """Return the account's time: real seconds and what somebody added to them."""
        return time.time() + self.offset

    def advance(self, seconds: float) -> None:
        """Move the clock forward, and remember that across restarts."""
        if seconds < 0:
            raise ValueError("the clock only moves forward")
        self.offset += seconds
        kept = self.rows["meta"]["account"] | {"offset": self.offset}
        self.commit([("meta", "account", kept)])

    def new_id(self, prefix: str) -> str:
        """Draw an id that looks like Stripe's; the same seed draws the same ids."""
        return prefix + "".join(self.dice.choices(string.ascii_letters + string.digits, k=24))

    def commit(self, changes: list[Change]) -> None:
        """Apply *changes* together; they are in the journal before this returns."""
        for kind, object_id, record in changes:
            self._apply(kind, object_id, record)
        if self._journal is not None:
            os.write(self._journal, orjson.dumps(changes) + b"\n")

    def ids(self, kind: str, customer: str | None) -> Collection[str]:
        """Return the ids of a customer's records of a kind, or of all, oldest first."""
        return self.rows[kind] if customer is None else self._owned.get((kind, customer), ())

    def of(self, kind: str, customer: str | None) -> list[Record]:
        """Return a customer's records of a kind, or everybody's, oldest first."""
        rows = self.rows[kind]
        return [rows[each] for each in self.ids(kind, customer) if each in rows]

    def due(self) -> list[Record]:
        """Take the drafts whose time to be finalized has come off the agenda."""
        now, found = self.now(), {}
        while self._agenda and self._agenda[0][0] <= now:
            at, invoice = heapq.heappop(self._agenda)
            record = self.rows["invoices"].get(invoice)
            if finalizes_at(record) == at and record is not None:
                found[invoice] = record
        return list(found.values())

    def clear(self) -> None:
        """Forget everything but the endpoints that were given at start."""
        kept = [each for each in self.rows["webhook_endpoints"].values() if each.get("lasting")]
        for held in (self.rows, self.waiting, self._owned, self._agenda):
            held.clear()
        if self._journal is not None:
            os.ftruncate(self._journal, 0)
        self.offset = 0.0
        meta: Change = ("meta", "account", {"starts": 1, "offset": 0.0})
        self.commit([meta, *(("webhook_endpoints", each["id"], each) for each in kept)])

    def _apply(self, kind: str, object_id: str, record: Record | None) -> None:
        old = self.rows[kind].get(object_id)
        if record is None:
            self.rows[kind].pop(object_id, None)
        else:
            self.rows[kind][object_id] = record
            owner = record.get("customer")
            if old is None and isinstance(owner, str):
                self._owned[kind, owner].append(object_id)
        if kind == "invoices" and (at := finalizes_at(record)) and at != finalizes_at(old):
            heapq.heappush(self._agenda, (at, object_id))
        if kind == "deliveries" and (old is None) != (record is None):
            event = (record or old or {})["event"]
            self.waiting[event] += 1 if old is None else -1
            if not self.waiting[event]:
                del self.waiting[event]

    def _load(self, path: Path) -> None:
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                changes = orjson.loads(line)
            except orjson.JSONDecodeError:
                break
            for change in changes:
                self._apply(*change)
        fresh = path.with_suffix(path.suffix + ".new")
        with fresh.open("wb") as file:
            for kind, rows in self.rows.items():
                for each, record in rows.items():
                    file.write(orjson.dumps([(kind, each, record)]) + b"\n")
        fresh.replace(path)
        self._journal = os.open(path, os.O_WRONLY | os.O_APPEND)


class Unit:
    """What one request reads and writes: all of it or nothing.

    *request* is the request's id and *key* its idempotency key; events quote both. Work that no
    request asked for has neither, a person in the Dashboard has no key.
    """

    def __init__(
        self, account: Account, request: str | None = None, key: str | None = None
    ) -> None:
        self.account, self.request, self.key = account, request, key
        self._staged: dict[tuple[str, str], Record | None] = {}

    @property
    def now(self) -> int:
        """The account's time as Stripe writes it."""
        return int(self.account.now())

    def find(self, kind: str, object_id: str | None) -> Record | None:
        """Return the record as this unit sees it, or None."""
        if object_id is None or (kind, object_id) in self._staged:
            return self._staged.get((kind, object_id or ""))
        return self.account.rows[kind].get(object_id)

    def get(self, kind: str, object_id: str, param: str | None = None) -> Record:
        """Return a live record; StripeError 404, or 400 when a *param* named it."""
        record = self.find(kind, object_id)
        if record is None or record.get("deleted"):
            raise missing(KINDS[kind].name, object_id, param)
        return record

    def put(self, kind: str, record: Record) -> Record:
        """Put a record in place of the one with its id."""
        self._staged[kind, record["id"]] = record
        return record

    def drop(self, kind: str, object_id: str) -> None:
        """Take a record away without a word."""
        self._staged[kind, object_id] = None

    def create(self, kind: str, record: Record) -> Record:
        """Put a new record, with an id unless it brings one, and tell it."""
        name = KINDS[kind].name
        object_id = record.get("id") or self.account.new_id(KINDS[kind].prefix)
        if self.find(kind, object_id) is not None:
            raise refuse(f"{name} already exists.", code="resource_already_exists", param="id")
        new = self.put(kind, {"created": self.now, **record, "id": object_id})
        self.tell(f"{name}.created", kind, new)
        return new

    def change(self, kind: str, old: Record, **changes: Any) -> Record:
        """Put *old* with *changes* and tell it."""
        new = self.put(kind, {**old, **changes})
        self.tell(f"{KINDS[kind].name}.updated", kind, new, old)
        return new

    def remove(self, kind: str, old: Record) -> None:
        """Take a record away and tell it."""
        self.drop(kind, old["id"])
        self.tell(f"{KINDS[kind].name}.deleted", kind, old)

    def tell(self, event: str, kind: str, after: Record, before: Record | None = None) -> None:
        """Record an event, if Stripe has it: *after* is the object, *before* what it was."""
        if event not in sdk.event_types():
            return
        record: Record = {"id": self.account.new_id("evt_1"), "created": self.now, "type": event}
        said = {"before": before, "request": self.request, "key": self.key}
        record |= {"kind": kind, "after": after} | {k: v for k, v in said.items() if v is not None}
        self.put("events", record)

    def discard(self) -> None:
        """Forget what was staged."""
        self._staged = {}

    def commit(self) -> None:
        """Make it so, and queue every event for the endpoints that selected it, in one step."""
        told = [each for (kind, _), each in self._staged.items() if kind == "events" and each]
        deliveries = [
            {"id": self.account.new_id("wd_1"), "event": each["id"], "endpoint": endpoint}
            | {"attempts": 0, "due": self.account.now()}
            for each in told
            for endpoint in self.hearers(each["type"])
        ]
        for delivery in deliveries:
            self.put("deliveries", delivery)
        staged, self._staged = self._staged, {}
        if staged:
            self.account.commit([(kind, key, record) for (kind, key), record in staged.items()])
        for delivery in deliveries:
            self.account.on_delivery(delivery)

    def hearers(self, event: str) -> list[str]:
        """Return the ids of the enabled endpoints that selected this type of event."""
        return [
            each["id"]
            for each in self.account.rows["webhook_endpoints"].values()
            if each.get("status") != "disabled" and {"*", event} & set(each["enabled_events"])
        ]


def finalizes_at(invoice: Record | None) -> int | None:
    """Return when a draft finalizes by itself, if it does.

    While an endpoint has not acknowledged ``invoice.created`` that is 72 hours after creation.
    """
    if invoice is None or invoice["status"] != "draft" or not invoice.get("auto_advance"):
        return None
    if invoice.get("unheard"):
        return int(invoice["created"]) + 72 * HOUR
    return int(invoice["automatically_finalizes_at"])
