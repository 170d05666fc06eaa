"""The words of the inbox: where an event stands, what Support sees of it, what a worker is handed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from billing.events.effects import Notice
from billing.usage import CustomerId, Period

NOTICE_FIELDS = ("type", "object_id", "customer", "invoice", "period")
"""What a record keeps of a `Notice`, '' for None."""


class EventStatus(StrEnum):
    """Where an event stands; IGNORED ones needed nothing: an unknown type, an echo of our own write."""

    PENDING = "PENDING"
    PROCESSED = "PROCESSED"
    IGNORED = "IGNORED"
    FAILED = "FAILED"


FINISHED = tuple(status for status in EventStatus if status is not EventStatus.PENDING)


@dataclass(frozen=True, slots=True)
class InboxEvent:
    """An event as Support sees it; *attempts* counts claims, *failure* tells of the last one that failed."""

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
        """From the hash that Redis keeps."""
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
class Claimed:
    """A waiting event in the hands of a worker; *strikes* counts its attempts, this one included."""

    notice: Notice
    strikes: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """The waiting events of one *subject*."""

    subject: str
    events: tuple[Claimed, ...]

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What the events say."""
        return tuple(each.notice for each in self.events)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the events."""
        return tuple(each.notice.id for each in self.events)

    def parted(self, strikes: int) -> tuple[Self, Self]:
        """Two bundles: events with at least *strikes*, and the others."""
        many = tuple(each for each in self.events if each.strikes >= strikes)
        few = tuple(each for each in self.events if each.strikes < strikes)
        return type(self)(self.subject, many), type(self)(self.subject, few)


def status_of(notice: Notice) -> EventStatus:
    """Where an event stands on arrival."""
    needs_work = notice.effect is not None and not notice.echo
    return EventStatus.PENDING if needs_work else EventStatus.IGNORED


def to_arguments(notice: Notice) -> tuple[str, ...]:
    """*notice* as ``receive.lua`` takes it: id, status, subject, then NOTICE_FIELDS."""
    period = "" if notice.period is None else str(notice.period)
    return (
        notice.id,
        status_of(notice),
        notice.subject,
        notice.type,
        notice.object_id or "",
        notice.customer or "",
        notice.invoice or "",
        period,
    )


def to_notice(event_id: str, values: Sequence[bytes | None]) -> Notice:
    """The notice in a record; *values* are its NOTICE_FIELDS."""
    kind, object_id, customer, invoice, period = ((each or b"").decode() for each in values)
    return Notice(
        id=event_id,
        type=kind,
        object_id=object_id or None,
        customer=CustomerId(customer) if customer else None,
        invoice=invoice or None,
        period=Period.parse(period) if period else None,
    )
