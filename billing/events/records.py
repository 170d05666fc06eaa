"""Records of the inbox: events as Support sees them, and as workers claim them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from billing.events.effects import EventRef
from billing.usage import CustomerId, Period

REF_FIELDS = ("type", "object_id", "customer", "invoice", "period")
"""The fields of an `EventRef` in a record; an empty string means None."""


class EventStatus(StrEnum):
    """Processing status of a webhook event."""

    PENDING = "PENDING"
    PROCESSED = "PROCESSED"
    IGNORED = "IGNORED"
    FAILED = "FAILED"


FINISHED_STATUSES = tuple(status for status in EventStatus if status is not EventStatus.PENDING)


@dataclass(frozen=True, slots=True)
class InboxEvent:
    """An event as Support sees it; *attempts* counts claims, *failure* describes the last failed one."""

    id: str
    type: str
    status: EventStatus
    received_ms: int
    processed_ms: int | None
    attempts: int
    object_id: str | None
    customer: CustomerId | None
    failure: str | None

    @classmethod
    def from_record(cls, event_id: str, record: Mapping[bytes, bytes]) -> Self:
        """Decode the hash of an event in Redis."""
        text = {name.decode(): value.decode() for name, value in record.items() if value}
        processed, customer = text.get("processed"), text.get("customer")
        return cls(
            id=event_id,
            type=text["type"],
            status=EventStatus(text["status"]),
            received_ms=int(text["received"]),
            processed_ms=None if processed is None else int(processed),
            attempts=int(text["attempts"]),
            object_id=text.get("object_id"),
            customer=None if customer is None else CustomerId(customer),
            failure=text.get("failure"),
        )


@dataclass(frozen=True, slots=True)
class ClaimedEvent:
    """A pending event claimed by a worker; *attempts* includes this one, but no forgiven ones."""

    ref: EventRef
    attempts: int


@dataclass(frozen=True, slots=True)
class EventGroup:
    """The claimed events of one *subject*."""

    subject: str
    events: tuple[ClaimedEvent, ...]

    @property
    def refs(self) -> tuple[EventRef, ...]:
        """The references of the events."""
        return tuple(event.ref for event in self.events)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the events."""
        return tuple(event.ref.id for event in self.events)

    def split_by_attempts(self, attempts: int) -> tuple[Self, Self]:
        """Split into the events with at least *attempts*, and the others."""
        many = tuple(event for event in self.events if event.attempts >= attempts)
        few = tuple(event for event in self.events if event.attempts < attempts)
        return type(self)(self.subject, many), type(self)(self.subject, few)


def status_of(ref: EventRef) -> EventStatus:
    """The status of a new event."""
    needs_work = ref.effect is not None and not ref.echo
    return EventStatus.PENDING if needs_work else EventStatus.IGNORED


def to_script_args(ref: EventRef) -> tuple[str, ...]:
    """Encode *ref* for ``receive.lua``: id, status, subject, then REF_FIELDS."""
    period = "" if ref.period is None else str(ref.period)
    return (
        ref.id,
        status_of(ref),
        ref.subject,
        ref.type,
        ref.object_id or "",
        ref.customer or "",
        ref.invoice or "",
        period,
    )


def to_event_ref(event_id: str, values: Sequence[bytes | None]) -> EventRef:
    """Decode the reference in a record; *values* are its REF_FIELDS."""
    kind, object_id, customer, invoice, period = ((value or b"").decode() for value in values)
    return EventRef(
        id=event_id,
        type=kind,
        object_id=object_id or None,
        customer=CustomerId(customer) if customer else None,
        invoice=invoice or None,
        period=Period.parse(period) if period else None,
    )
