"""One Stripe account: its records, its clock, its random numbers and its transactions.

A record is a sparse dictionary and immutable once stored: a change stores a new one. Events
therefore reference records instead of copying them, and a rollback restores the old ones. The
optional state file is a journal with one line a transaction, written in one write to the kernel: it
survives SIGKILL, not a power cut. A torn last line is ignored, and each start compacts the journal.
"""

import os
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import orjson

from sandbox import sdk
from sandbox.errors import bad_request, not_found
from sandbox.sdk import KINDS
from sandbox.settings import Settings

Record = dict[str, Any]
HOUR: Final = 3600
DAY: Final = 24 * HOUR
MAX_METADATA: Final = 50
NEW_ACCOUNT: Final[Record] = {"id": "account", "starts": 1, "offset": 0.0}


class Account:
    """All records by kind and id, oldest first. ``base_url`` is the sandbox's public address."""

    def __init__(self, settings: Settings, path: Path | None = None, seed: int = 0) -> None:
        self.settings, self.seed, self.base_url = settings, seed, ""
        self.rows: defaultdict[str, dict[str, Record]] = defaultdict(dict)
        self._owned: defaultdict[tuple[str, str], dict[str, Record]] = defaultdict(dict)
        self._undo: list[tuple[str, str, Record | None]] = []
        self._request_info: Record = {}
        self._journal = None if path is None else self._open_journal(path)
        meta = self.rows["meta"].get("account", NEW_ACCOUNT | {"starts": 0})
        self.rng = random.Random(f"{seed}:{meta['starts']}")  # noqa: S311
        with self.transaction():
            self.put("meta", meta | {"starts": meta["starts"] + 1})

    def time(self) -> float:
        """Return the account's time: Unix seconds plus the offset by which the clock was advanced."""
        offset: float = self.rows["meta"]["account"]["offset"]
        return time.time() + offset

    @property
    def now(self) -> int:
        """The account's time in whole seconds, as Stripe writes it."""
        return int(self.time())

    def new_id(self, prefix: str) -> str:
        """Return a random id as long as Stripe's; the same seed gives the same ids."""
        return prefix + self.rng.randbytes(12).hex()

    @contextmanager
    def transaction(self, **request_info: str | None) -> Iterator[None]:
        """Apply all changes made within or none; they are in the journal when this returns.

        Events of the transaction carry *request_info*: the ``request`` id and the idempotency ``key``.
        """
        self._request_info = {name: value for name, value in request_info.items() if value}
        try:
            yield
        except BaseException:
            self.rollback()
            raise
        changed = {(kind, name): self.rows[kind].get(name) for kind, name, _ in self._undo}
        self._undo.clear()
        if changed and self._journal is not None:
            line = [(*kind_and_id, record) for kind_and_id, record in changed.items()]
            os.write(self._journal, orjson.dumps(line) + b"\n")

    def rollback(self) -> None:
        """Restore the records as they were before the transaction."""
        while self._undo:
            self._index(*self._undo.pop())

    def get(self, kind: str, name: str, param: str | None = None) -> Record:
        """Return a live record; StripeError 404, or 400 when a *param* named it."""
        record = self.rows[kind].get(name)
        if record is None or record.get("deleted"):
            raise not_found(KINDS[kind].name, name, param)
        return record

    def owned_by(self, kind: str, customer: str | None) -> dict[str, Record]:
        """Return a customer's records of a kind, or all of the kind without one, oldest first."""
        return self.rows[kind] if customer is None else self._owned.get((kind, customer), {})

    def put(self, kind: str, record: Record) -> Record:
        """Store a record in place of the one with its id, without an event."""
        self._undo.append((kind, record["id"], self.rows[kind].get(record["id"])))
        self._index(kind, record["id"], record)
        return record

    def drop(self, kind: str, record: Record) -> None:
        """Remove a record without an event."""
        self._undo.append((kind, record["id"], record))
        self._index(kind, record["id"], None)

    def create(self, kind: str, fields: Record) -> Record:
        """Store a new record, with a new id unless *fields* has one, and emit ``created``."""
        noun, name = KINDS[kind].name, fields.get("id") or self.new_id(KINDS[kind].prefix)
        if name in self.rows[kind]:
            raise bad_request(f"{noun} already exists.", code="resource_already_exists", param="id")
        new = self.put(kind, {"created": self.now, **merged({}, fields), "id": name})
        self.emit(f"{noun}.created", kind, new)
        return new

    def change(self, kind: str, old: Record, fields: Record) -> Record:
        """Merge *fields* into *old*; if that changes it, store the result and emit ``updated``."""
        if (new := merged(old, fields)) != old:
            self.put(kind, new)
            self.emit(f"{KINDS[kind].name}.updated", kind, new, old)
        return new

    def remove(self, kind: str, old: Record) -> Record:
        """Remove a record, emit ``deleted``, and return the tombstone."""
        self.drop(kind, old)
        self.emit(f"{KINDS[kind].name}.deleted", kind, old)
        return {"id": old["id"], "deleted": True}

    def emit(self, event: str, kind: str, after: Record, before: Record | None = None) -> None:
        """Record an event, if Stripe has this type, and queue it for the endpoints that selected it.

        Deliveries are due at slightly random times, so that no test relies on their order.
        """
        if event not in sdk.event_types():
            return
        now, name = self.time(), self.new_id("evt_1")
        record = {"id": name, "created": int(now), "type": event, "kind": kind, "after": after}
        previous = {"before": before} if before else {}
        self.put("events", record | previous | self._request_info)
        for endpoint in self.subscribers(event):
            delivery = {"id": f"{name}:{endpoint}", "event": name, "endpoint": endpoint}
            due = now + self.rng.random() * self.settings.shuffle
            self.put("deliveries", delivery | {"attempts": 0, "due": due})

    def subscribers(self, event: str) -> list[str]:
        """Return the ids of the enabled endpoints that selected this type of event."""
        endpoints = self.rows["webhook_endpoints"].values()
        enabled = [row for row in endpoints if row.get("status") != "disabled"]
        return [row["id"] for row in enabled if {"*", event} & set(row["enabled_events"])]

    def pending_endpoints(self, event: str) -> int:
        """Return the number of endpoints that have not acknowledged an event."""
        deliveries, endpoints = self.rows["deliveries"], self.rows["webhook_endpoints"]
        return sum(f"{event}:{endpoint}" in deliveries for endpoint in endpoints)

    def purge(self, kind: str, field: str, seconds: float) -> None:
        """Remove the records that are older than *seconds*, by the time in *field*."""
        end, rows = self.time() - seconds, self.rows[kind].values()
        with self.transaction():
            for record in list(takewhile(lambda row: row[field] <= end, rows)):
                self.drop(kind, record)

    def clear(self) -> None:
        """Remove all records but the webhook endpoints given at start."""
        with self.transaction():
            for kind, rows in self.rows.items():
                for record in [row for row in rows.values() if not row.get("lasting")]:
                    self.drop(kind, record)
            self.put("meta", NEW_ACCOUNT)

    def _index(self, kind: str, name: str, record: Record | None) -> None:
        rows, owner = self.rows[kind], (record or {}).get("customer")
        before = rows.get(name, {}).get("customer")
        if before != owner and isinstance(before, str):
            self._owned[kind, before].pop(name)
        if record is None:
            rows.pop(name, None)
            return
        rows[name] = record
        if isinstance(owner, str):
            self._owned[kind, owner][name] = record

    def _open_journal(self, path: Path) -> int:
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                changes = orjson.loads(line)
            except orjson.JSONDecodeError:
                break
            for change in changes:
                self._index(*change)
        compacted = path.with_suffix(path.suffix + ".new")
        with compacted.open("wb") as file:
            for kind, rows in self.rows.items():
                file.writelines(orjson.dumps([(kind, *row)]) + b"\n" for row in rows.items())
        compacted.replace(path)
        return os.open(path, os.O_WRONLY | os.O_APPEND)


def merged(old: Record, changes: Record) -> Record:
    """Merge *changes* into *old*: hashes are merged; an empty value deletes a key of the metadata."""
    new = {**old, **changes}
    for name, value in changes.items():
        if isinstance(value, dict):
            new[name] = {**(old.get(name) or {}), **value}
    if "metadata" in changes:  # null deletes all of it
        new["metadata"] = {key: value for key, value in (new["metadata"] or {}).items() if value}
        if len(new["metadata"]) > MAX_METADATA:
            raise bad_request(
                f"You can have at most {MAX_METADATA} metadata keys.", param="metadata"
            )
    return new
