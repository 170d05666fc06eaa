"""What follows from a Stripe event: `EFFECTS` is the table of contents.

An event says "this object may have changed" and nothing more. Of its payload only identities are
kept (a `Notice`), because Stripe delivers in any order, more than once, and in the shape of whatever
API version the endpoint was created with. So no amount, status or time of an event is ever believed;
whoever needs them reads Stripe, after the generations named here were replaced.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from billing.cache import entries
from billing.invoicing.metadata_keys import OUR_KEYS, period_of
from billing.usage import CustomerId, Period

# An event that only names its object; an endpoint of ours asks for whole ones, another may not.
THIN = "v2.core.event"
_NAME = re.compile(r"[a-z0-9_.]{1,100}")
EVENT_ID = re.compile(r"evt_[A-Za-z0-9_]{1,250}")
_ID = re.compile(r"[A-Za-z0-9_]{1,255}")


class NotAnEvent(ValueError):
    """The JSON is no Stripe event; the message says in one sentence what is missing."""


class Duty(StrEnum):
    """What a worker does about an event, besides forgetting and telling subscribers."""

    NOTHING = "nothing"
    LOOK = "look"
    """Have the period's invoice read again under its lease: one finalized elsewhere is sealed, an
    edited one verified against the ledger, a deleted one made anew."""
    HOLD = "hold"
    """As LOOK; and when the period is sealed already, bill nothing more until a person has decided
    what becomes of the usage that the invoice asked for."""
    WAKE = "wake"
    """Try again what was parked: what parks a customer is often cured by an edit of that customer."""
    WAKE_ALL = "wake_all"
    """Try again whatever is parked: an archived price parks everybody who uses it."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What an event of one type asks for.

    *generations* are replaced besides those of the invoice and the customer that the event names. What is a
    customer's and names none (a thin event, a card that was detached) may be anybody's.
    """

    duty: Duty = Duty.NOTHING
    generations: tuple[str, ...] = ()


_LIFE = Effect(Duty.LOOK)
_VOID = Effect(Duty.HOLD)
_SHOWN = Effect()
_CUSTOMER = Effect(Duty.WAKE, (entries.CUSTOMERS,))
_CARD = Effect(generations=(entries.CUSTOMERS,))  # a list of customers may show how each pays
_CATALOGUE = Effect(Duty.WAKE_ALL, (entries.CATALOGUE,))

# Left out on purpose: `invoiceitem.*` and `invoice_payment.*` (an `invoice.updated` comes with
# each), `invoice.upcoming` (subscriptions only), `charge.*`, `refund.*` and `payment_intent.*` (they
# change no object that is shown but through an invoice or a credit note).
EFFECTS: Mapping[str, Effect] = {
    "invoice.created": _LIFE,
    "invoice.updated": _LIFE,
    "invoice.deleted": _LIFE,
    "invoice.finalized": _LIFE,
    "invoice.finalization_failed": _LIFE,
    "invoice.paid": _LIFE,
    "invoice.voided": _VOID,
    "invoice.marked_uncollectible": _LIFE,
    "invoice.payment_failed": _SHOWN,
    "invoice.payment_action_required": _SHOWN,
    "invoice.payment_attempt_required": _SHOWN,
    "invoice.sent": _SHOWN,
    "invoice.will_be_due": _SHOWN,
    "invoice.overdue": _SHOWN,
    "invoice.overpaid": _SHOWN,
    "credit_note.created": _SHOWN,
    "credit_note.updated": _SHOWN,
    "credit_note.voided": _SHOWN,
    "customer.created": _CUSTOMER,
    "customer.updated": _CUSTOMER,
    "customer.deleted": _CUSTOMER,
    "customer.discount.created": _SHOWN,
    "customer.discount.updated": _SHOWN,
    "customer.discount.deleted": _SHOWN,
    "customer.tax_id.created": _SHOWN,
    "customer.tax_id.updated": _SHOWN,
    "customer.tax_id.deleted": _SHOWN,
    "customer.source.created": _SHOWN,
    "customer.source.updated": _SHOWN,
    "customer.source.deleted": _SHOWN,
    "payment_method.attached": _CARD,
    "payment_method.updated": _CARD,
    "payment_method.automatically_updated": _CARD,
    "payment_method.detached": _CARD,
    "price.created": _CATALOGUE,
    "price.updated": _CATALOGUE,
    "price.deleted": _CATALOGUE,
    "product.created": _CATALOGUE,
    "product.updated": _CATALOGUE,
    "product.deleted": _CATALOGUE,
}


@dataclass(frozen=True, slots=True)
class Notice:
    """An event reduced to identities: which object may have changed, whose it is.

    *object_id* is None for the few objects without an id. *period* is the one that our metadata on
    the invoice names. *echo* says that a write of ours caused the event: whoever wrote has looked.
    """

    id: str
    type: str
    object_id: str | None = None
    customer: CustomerId | None = None
    invoice: str | None = None
    period: Period | None = None
    echo: bool = False

    @classmethod
    def of(cls, event: object) -> Self:
        """The notice in a Stripe *event* (parsed JSON) of any API version, whole or thin; NotAnEvent otherwise."""
        body = _mapping(event, "The body is no JSON object.")
        if body.get("object") == THIN:
            body = _in_full(body)
        data = _mapping(body.get("data"), "The event has no `data`.")
        subject = _mapping(data.get("object"), "The event has no `data.object`.")
        return cls(
            id=_matching(EVENT_ID, body.get("id"), "The event has no usable `id`."),
            type=_matching(_NAME, body.get("type"), "The event has no usable `type`."),
            object_id=_id(subject.get("id")),
            customer=customer_of(subject) or customer_of(data.get("previous_attributes")),
            invoice=invoice_of(subject),
            period=period_of(subject.get("metadata")),
            echo=_is_ours(body.get("request")),
        )

    @property
    def effect(self) -> Effect | None:
        """What follows; None for a type that the gateway has no use for."""
        return EFFECTS.get(self.type)

    @property
    def subject(self) -> str:
        """What the events of a burst have in common: they are worked on together."""
        return self.invoice or self.object_id or self.id

    @property
    def path(self) -> str | None:
        """Where the object can be read, to learn whose it is when the event does not say."""
        if self.invoice is not None:
            return f"/v1/invoices/{self.invoice}"
        if self.object_id is not None and self.object_id.startswith("pm_"):
            return f"/v1/payment_methods/{self.object_id}"
        if self.object_id is not None and self.object_id.startswith("cn_"):
            return f"/v1/credit_notes/{self.object_id}"
        return None

    @property
    def generations(self) -> tuple[str, ...]:
        """The generations to replace."""
        if self.effect is None:
            return ()
        owner: str | None = self.customer
        if owner is None and self.effect is not _CATALOGUE:
            owner = entries.ANYBODY
        named = (each for each in (self.invoice, owner) if each is not None)
        return (*named, *self.effect.generations)


def invoice_of(body: Mapping[str, Any]) -> str | None:
    """The invoice that *body*, a Stripe object, is or belongs to."""
    return _id(body.get("id"), "in_") or _id(body.get("invoice"), "in_")


def customer_of(body: object) -> CustomerId | None:
    """The customer that *body*, a Stripe object, is or belongs to."""
    if not isinstance(body, dict):
        return None
    found = _id(body.get("id"), "cus_") or _id(body.get("customer"), "cus_")
    return None if found is None else CustomerId(found)


def _in_full(thin: Mapping[str, Any]) -> Mapping[str, Any]:
    """A thin event in the shape of a whole one: it names an object and shows nothing of it."""
    reason = thin.get("reason")
    return {
        "id": thin.get("id"),
        "type": str(thin.get("type")).removeprefix("v1."),
        "data": {"object": thin.get("related_object")},
        "request": reason.get("request") if isinstance(reason, dict) else None,
    }


def _mapping(value: object, otherwise: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise NotAnEvent(otherwise)
    return value


def _matching(pattern: re.Pattern[str], value: object, otherwise: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise NotAnEvent(otherwise)
    return value


def _id(value: object, prefix: str = "") -> str | None:
    """*value* if it is an id of Stripe's, of the kind that *prefix* names."""
    if isinstance(value, str) and value.startswith(prefix) and _ID.fullmatch(value):
        return value
    return None


def _is_ours(request: object) -> bool:
    key = request.get("idempotency_key") if isinstance(request, dict) else None
    return isinstance(key, str) and key.startswith(OUR_KEYS)
