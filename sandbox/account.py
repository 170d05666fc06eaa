"""One Stripe account: its records, its clock and its dice, and the unit in which it is changed.

A record is a sparse dictionary and is never changed once it has been put: a change puts a new one.
So events keep records instead of copies, and a unit that fails puts the old ones back. The file, if
asked for, is a journal: a line a unit, in one write to the kernel, so that it survives SIGKILL (not
a power cut). A torn last line is ignored, and each start rewrites it without its history.
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
from sandbox.errors import missing, refuse
from sandbox.faults import Settings
from sandbox.sdk import KINDS

Record = dict[str, Any]
HOUR: Final = 3600
DAY: Final = 24 * HOUR
MAX_METADATA: Final = 50
NEW: Final[Record] = {"id": "account", "starts": 1, "offset": 0.0}


class Account:
    """All records by kind and id, oldest first. ``base_url`` is where a browser reaches us."""

    def __init__(self, settings: Settings, path: Path | None = None, seed: int = 0) -> None:
        self.settings, self.seed, self.base_url = settings, seed, ""
        self.rows: defaultdict[str, dict[str, Record]] = defaultdict(dict)
        self._owned: defaultdict[tuple[str, str], dict[str, Record]] = defaultdict(dict)
        self._undo: list[tuple[str, str, Record | None]] = []
        self._asked_by: Record = {}
        self._journal = None if path is None else self._opened(path)
        kept = self.rows["meta"].get("account", NEW | {"starts": 0})
        self.dice = random.Random(f"{seed}:{kept['starts']}")  # noqa: S311
        with self.unit():
            self.put("meta", kept | {"starts": kept["starts"] + 1})

    def time(self) -> float:
        """Return the account's time: real seconds and what somebody added to them."""
        offset: float = self.rows["meta"]["account"]["offset"]
        return time.time() + offset

    @property
    def now(self) -> int:
        """The account's time as Stripe writes it."""
        return int(self.time())

    def new_id(self, prefix: str) -> str:
        """Draw an id as long as Stripe's; the same seed draws the same ids."""
        return prefix + self.dice.randbytes(12).hex()

    @contextmanager
    def unit(self, **asked_by: str | None) -> Iterator[None]:
        """Do all that happens within, or nothing; it is in the journal when this returns.

        Its events quote the ``request`` and the idempotency ``key`` that it is *asked by*.
        """
        self._asked_by = {name: value for name, value in asked_by.items() if value}
        try:
            yield
        except BaseException:
            self.undo()
            raise
        changed = {(kind, name): self.rows[kind].get(name) for kind, name, _ in self._undo}
        self._undo.clear()
        if changed and self._journal is not None:
            line = [(*place, record) for place, record in changed.items()]
            os.write(self._journal, orjson.dumps(line) + b"\n")

    def undo(self) -> None:
        """Put back what the unit found."""
        while self._undo:
            self._place(*self._undo.pop())

    def get(self, kind: str, name: str, param: str | None = None) -> Record:
        """Return a live record; StripeError 404, or 400 when a *param* named it."""
        record = self.rows[kind].get(name)
        if record is None or record.get("deleted"):
            raise missing(KINDS[kind].name, name, param)
        return record

    def of(self, kind: str, customer: str | None) -> dict[str, Record]:
        """Return a customer's records of a kind, or everybody's, oldest first."""
        return self.rows[kind] if customer is None else self._owned.get((kind, customer), {})

    def put(self, kind: str, record: Record) -> Record:
        """Put a record in place of the one with its id, without a word."""
        self._undo.append((kind, record["id"], self.rows[kind].get(record["id"])))
        self._place(kind, record["id"], record)
        return record

    def drop(self, kind: str, record: Record) -> None:
        """Take a record away without a word."""
        self._undo.append((kind, record["id"], record))
        self._place(kind, record["id"], None)

    def create(self, kind: str, given: Record) -> Record:
        """Put a new record, with an id unless it brings one, and tell it."""
        noun, name = KINDS[kind].name, given.get("id") or self.new_id(KINDS[kind].prefix)
        if name in self.rows[kind]:
            raise refuse(f"{noun} already exists.", code="resource_already_exists", param="id")
        new = self.put(kind, {"created": self.now, **overlaid({}, given), "id": name})
        self.tell(f"{noun}.created", kind, new)
        return new

    def change(self, kind: str, old: Record, given: Record) -> Record:
        """Lay what is *given* over *old*; if that changes it, tell what was before."""
        if (new := overlaid(old, given)) != old:
            self.put(kind, new)
            self.tell(f"{KINDS[kind].name}.updated", kind, new, old)
        return new

    def remove(self, kind: str, old: Record) -> Record:
        """Take a record away, tell it, and return what is left to show."""
        self.drop(kind, old)
        self.tell(f"{KINDS[kind].name}.deleted", kind, old)
        return {"id": old["id"], "deleted": True}

    def tell(self, event: str, kind: str, after: Record, before: Record | None = None) -> None:
        """Record an event, if Stripe has it, and queue it for the endpoints that selected it.

        A little chance in the time of each delivery keeps anybody from relying on their order.
        """
        if event not in sdk.event_types():
            return
        now, name = self.time(), self.new_id("evt_1")
        said = {"before": before} if before else {}
        what = {"id": name, "created": int(now), "type": event, "kind": kind, "after": after}
        self.put("events", what | said | self._asked_by)
        for endpoint in self.hearers(event):
            delivery = {"id": f"{name}:{endpoint}", "event": name, "endpoint": endpoint}
            due = now + self.dice.random() * self.settings.shuffle
            self.put("deliveries", delivery | {"attempts": 0, "due": due})

    def hearers(self, event: str) -> list[str]:
        """Return the ids of the enabled endpoints that selected this type of event."""
        endpoints = self.rows["webhook_endpoints"].values()
        enabled = [each for each in endpoints if each.get("status") != "disabled"]
        return [each["id"] for each in enabled if {"*", event} & set(each["enabled_events"])]

    def waiting(self, event: str) -> int:
        """Return how many endpoints have not acknowledged an event."""
        deliveries = self.rows["deliveries"]
        return sum(f"{event}:{each}" in deliveries for each in self.rows["webhook_endpoints"])

    def forget(self, kind: str, field: str, seconds: float) -> None:
        """Drop the records that are older than so many seconds, by the time in *field*."""
        end, rows = self.time() - seconds, self.rows[kind].values()
        with self.unit():
            for each in list(takewhile(lambda row: row[field] <= end, rows)):
                self.drop(kind, each)

    def clear(self) -> None:
        """Forget everything but the endpoints that were given at start."""
        with self.unit():
            for kind, rows in self.rows.items():
                for each in [each for each in rows.values() if not each.get("lasting")]:
                    self.drop(kind, each)
            self.put("meta", NEW)

    def _place(self, kind: str, name: str, record: Record | None) -> None:
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

    def _opened(self, path: Path) -> int:
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                changes = orjson.loads(line)
            except orjson.JSONDecodeError:
                break
            for change in changes:
                self._place(*change)
        fresh = path.with_suffix(path.suffix + ".new")
        with fresh.open("wb") as file:
            for kind, rows in self.rows.items():
                file.writelines(orjson.dumps([(kind, *row)]) + b"\n" for row in rows.items())
        fresh.replace(path)
        return os.open(path, os.O_WRONLY | os.O_APPEND)


def overlaid(old: Record, given: Record) -> Record:
    """Lay *given* over *old*: hashes are merged; an empty value deletes a key of the metadata."""
    new = {**old, **given}
    for name, value in given.items():
        if isinstance(value, dict):
            new[name] = {**(old.get(name) or {}), **value}
    if "metadata" in given:  # null deletes all of it
        new["metadata"] = {key: value for key, value in (new["metadata"] or {}).items() if value}
        if len(new["metadata"]) > MAX_METADATA:
            raise refuse(f"You can have at most {MAX_METADATA} metadata keys.", param="metadata")
    return new
