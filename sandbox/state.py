"""What the account holds: records by kind and id, kept in memory and, if asked, in a file.

A record is a sparse dictionary (only what differs from its shape's defaults) and is never changed
once it has been put: a change puts a new one. So events can keep records instead of copies, and a
request that fails has nothing to undo. The file is a journal: one line a commit, in one write to
the kernel, so that it survives SIGKILL (not a power cut); a torn last line is ignored. Each start
rewrites it without its history.
"""

import heapq
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

Record = dict[str, Any]
Change = tuple[str, str, Record | None]
UNLISTED = {"keys", "deliveries", "meta"}
LONGEST_WAIT = 72 * 3600


class State:
    """All records. ``orders[kind]`` lists ids oldest first; a record's ``_n`` is its place there."""

    def __init__(self, path: Path | None = None) -> None:
        self.rows: defaultdict[str, dict[str, Record]] = defaultdict(dict)
        self.orders: defaultdict[str, list[str | None]] = defaultdict(list)
        self.owned: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self.homes: dict[str, str] = {}
        self.lookups: dict[str, str] = {}
        self.agenda: list[tuple[int, str]] = []
        self.waiting: Counter[str] = Counter()
        self._path = path
        self._journal: int | None = None
        if path is not None:
            self._load(path)

    def commit(self, changes: list[Change]) -> None:
        """Apply *changes* together; they are in the journal before this returns."""
        for kind, object_id, record in changes:
            self._apply(kind, object_id, record)
        if self._journal is not None:
            os.write(self._journal, orjson.dumps(changes) + b"\n")

    def due(self, now: int) -> Iterator[Record]:
        """Take the drafts whose time to be finalized has come off the agenda."""
        while self.agenda and self.agenda[0][0] <= now:
            at, invoice = heapq.heappop(self.agenda)
            record = self.rows["invoices"].get(invoice)
            if record is not None and finalizes_at(record) == at:
                yield record

    def newest_first(self, kind: str, owner: str | None = None) -> Iterator[Record]:
        """Walk a kind's records, or those of one customer, newest first."""
        return self.before(kind, None, owner)

    def before(self, kind: str, mark: Record | None, owner: str | None = None) -> Iterator[Record]:
        """Walk the records older than *mark*, newest first."""
        ids, rows = self._ids(kind, owner), self.rows[kind]
        end = len(ids) if mark is None else self._place(ids, mark, owner)
        return (rows[i] for i in (ids[n] for n in range(end - 1, -1, -1)) if i in rows)

    def after(self, kind: str, mark: Record, owner: str | None = None) -> Iterator[Record]:
        """Walk the records newer than *mark*, oldest first."""
        ids, rows = self._ids(kind, owner), self.rows[kind]
        start = self._place(ids, mark, owner) + 1
        return (rows[i] for i in (ids[n] for n in range(start, len(ids))) if i in rows)

    def clear(self) -> None:
        """Forget everything, the journal included."""
        if self._journal is not None:
            os.ftruncate(self._journal, 0)
        indexes = (self.owned, self.homes, self.lookups, self.agenda, self.waiting)
        for held in (self.rows, self.orders, *indexes):
            held.clear()

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            os.close(self._journal)
            self._journal = None

    def _ids(self, kind: str, owner: str | None) -> list[Any]:
        return self.orders[kind] if owner is None else self.owned.get((kind, owner), [])

    @staticmethod
    def _place(ids: list[Any], mark: Record, owner: str | None) -> int:
        if owner is None:
            return int(mark["_n"])
        return ids.index(mark["id"]) if mark["id"] in ids else 0

    def _apply(self, kind: str, object_id: str, record: Record | None) -> None:
        old = self.rows[kind].get(object_id)
        if record is None:
            self.rows[kind].pop(object_id, None)
        else:
            self.rows[kind][object_id] = record
            if old is None and kind not in UNLISTED:
                self._append(kind, record)
            elif old is not None and "_n" in old:
                record["_n"] = old["_n"]
        if kind == "invoices":
            self._index_invoice(object_id, old, record)
        elif kind == "prices" and record is not None and record.get("lookup_key"):
            self.lookups[record["lookup_key"]] = object_id
        elif kind == "deliveries" and (old is None) != (record is None):
            self._count_waiting((record or old or {})["event"], 1 if old is None else -1)

    def _append(self, kind: str, record: Record) -> None:
        order = self.orders[kind]
        record["_n"] = len(order)
        order.append(record["id"])
        if kind != "events" and isinstance(owner := record.get("customer"), str):
            self.owned[kind, owner].append(record["id"])

    def _index_invoice(self, invoice: str, old: Record | None, new: Record | None) -> None:
        before, lines = (old or {}).get("_lines", ()), (new or {}).get("_lines", ())
        if before is not lines:
            for line in before:
                self.homes.pop(line["item"], None)
            for line in lines:
                self.homes[line["item"]] = invoice
        due = finalizes_at(new)
        if due is not None and due != finalizes_at(old):
            heapq.heappush(self.agenda, (due, invoice))

    def _count_waiting(self, event: str, step: int) -> None:
        self.waiting[event] += step
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
                for object_id, record in rows.items():
                    file.write(orjson.dumps([(kind, object_id, record)]) + b"\n")
        fresh.replace(path)
        self._journal = os.open(path, os.O_WRONLY | os.O_APPEND)


def finalizes_at(invoice: Record | None) -> int | None:
    """Return when a draft finalizes by itself, if it does.

    While an endpoint has not acknowledged ``invoice.created`` that is 72 hours after creation.
    """
    if invoice is None or invoice["status"] != "draft" or not invoice.get("auto_advance"):
        return None
    if invoice.get("_unheard"):
        return int(invoice["created"]) + LONGEST_WAIT
    return int(invoice["automatically_finalizes_at"])
