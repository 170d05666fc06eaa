"""Effects of Stripe events by type: the table `EFFECTS`.

An event only means "this object may have changed". Of its payload only the ids are used (an
`EventRef`), because Stripe delivers in any order, more than once, and in the format of the endpoint's API
version. Amounts, statuses and times are never taken from an event: they are read from Stripe, after the
generations named here were replaced.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from billing.cache import entries
from billing.invoicing.metadata_keys import IDEMPOTENCY_PREFIX, period_of
from billing.usage import CustomerId, Period

# An event that contains only its object's id. Our endpoint requests full events, another may not.
THIN_EVENT = "v2.core.event"
_NAME = re.compile(r"[!-~]{1,255}")  # Stripe writes v2.core.account[requirements].updated, too
EVENT_ID = re.compile(r"evt_[A-Za-z0-9_]{1,250}")
_ID = re.compile(r"[A-Za-z0-9_]{1,255}")


class InvalidEvent(ValueError):
    """The JSON is no event of any API version; the message says in one sentence what is missing."""


class FollowUp(StrEnum):
    """A worker's action for an event, besides invalidating the cache and notifying subscribers."""

    NOTHING = "nothing"
    VERIFY = "verify"
    """Read the period's invoice again under its lease: seal one that was finalized elsewhere, compare an
    edited one with the ledger, recreate a deleted one."""
    HOLD = "hold"
    """As VERIFY; and if the period is sealed, place a billing hold, until a person decides about the usage
    that the invoice billed."""
    WAKE = "wake"
    """Retry the customer's parked periods: editing the customer often removes the reason."""
    DELETED = "deleted"
    """As WAKE; and record that Stripe has deleted the customer, who accepts no usage from then on."""
    WAKE_ALL = "wake_all"
    """Retry all parked periods: a price that Stripe rejects parks every customer who uses it."""


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of an event type.

    *generations* are replaced in addition to those of the event's invoice and customer. An event about a
    customer's object that does not name the customer (a thin event, a detached card) may concern any.
    """

    follow_up: FollowUp = FollowUp.NOTHING
    generations: tuple[str, ...] = ()


_INVOICE_CHANGED = Effect(FollowUp.VERIFY)
_INVOICE_VOIDED = Effect(FollowUp.HOLD)
_DISPLAY_ONLY = Effect()
_CUSTOMER_CHANGED = Effect(FollowUp.WAKE, (entries.CUSTOMERS,))
_CUSTOMER_DELETED = Effect(FollowUp.DELETED, (entries.CUSTOMERS,))
# A list of customers may show their payment methods.
_PAYMENT_METHOD_CHANGED = Effect(generations=(entries.CUSTOMERS,))
_CATALOG_CHANGED = Effect(FollowUp.WAKE_ALL, (entries.PRICE_CATALOG,))

# Left out on purpose: `invoiceitem.*` and `invoice_payment.*` (each comes with an `invoice.updated`),
# `invoice.upcoming` (subscriptions only), `charge.*`, `refund.*` and `payment_intent.*` (they change a
# visible object only through an invoice or a credit note).
EFFECTS: Mapping[str, Effect] = {
    "invoice.created": _INVOICE_CHANGED,
    "invoice.updated": _INVOICE_CHANGED,
    "invoice.deleted": _INVOICE_CHANGED,
    "invoice.finalized": _INVOICE_CHANGED,
    "invoice.finalization_failed": _INVOICE_CHANGED,
    "invoice.paid": _INVOICE_CHANGED,
    "invoice.voided": _INVOICE_VOIDED,
    "invoice.marked_uncollectible": _INVOICE_CHANGED,
    "invoice.payment_failed": _DISPLAY_ONLY,
    "invoice.payment_action_required": _DISPLAY_ONLY,
    "invoice.payment_attempt_required": _DISPLAY_ONLY,
    "invoice.sent": _DISPLAY_ONLY,
    "invoice.will_be_due": _DISPLAY_ONLY,
    "invoice.overdue": _DISPLAY_ONLY,
    "invoice.overpaid": _DISPLAY_ONLY,
    "credit_note.created": _DISPLAY_ONLY,
    "credit_note.updated": _DISPLAY_ONLY,
    "credit_note.voided": _DISPLAY_ONLY,
    "customer.created": _CUSTOMER_CHANGED,
    "customer.updated": _CUSTOMER_CHANGED,
    "customer.deleted": _CUSTOMER_DELETED,
    "customer.discount.created": _DISPLAY_ONLY,
    "customer.discount.updated": _DISPLAY_ONLY,
    "customer.discount.deleted": _DISPLAY_ONLY,
    "customer.tax_id.created": _DISPLAY_ONLY,
    "customer.tax_id.updated": _DISPLAY_ONLY,
    "customer.tax_id.deleted": _DISPLAY_ONLY,
    "customer.source.created": _DISPLAY_ONLY,
    "customer.source.updated": _DISPLAY_ONLY,
    "customer.source.deleted": _DISPLAY_ONLY,
    "payment_method.attached": _PAYMENT_METHOD_CHANGED,
    "payment_method.updated": _PAYMENT_METHOD_CHANGED,
    "payment_method.automatically_updated": _PAYMENT_METHOD_CHANGED,
    "payment_method.detached": _PAYMENT_METHOD_CHANGED,
    "price.created": _CATALOG_CHANGED,
    "price.updated": _CATALOG_CHANGED,
    "price.deleted": _CATALOG_CHANGED,
    "product.created": _CATALOG_CHANGED,
    "product.updated": _CATALOG_CHANGED,
    "product.deleted": _CATALOG_CHANGED,
}


@dataclass(frozen=True, slots=True)
class EventRef:
    """A reference to an event: the ids of the object that may have changed and of its customer.

    *object_id* is None for the few objects without an id. *period* is from our metadata on the invoice.
    *echo* is true for an event caused by our own write, which needs no work.
    """

    id: str
    type: str
    object_id: str | None = None
    customer: CustomerId | None = None
    invoice: str | None = None
    period: Period | None = None
    echo: bool = False

    @classmethod
    def from_payload(cls, event: object) -> Self:
        """Reduce an event (parsed JSON), full or thin, of any API version, also one without an object.

        Raises InvalidEvent if it has no id or no type: whatever has both is Stripe's to send.
        """
        if not isinstance(event, dict):
            raise InvalidEvent("The body is not a JSON object.")
        body = _expand_thin_event(event) if event.get("object") == THIN_EVENT else event
        data = _mapping(body.get("data"))
        subject = _mapping(data.get("object"))
        return cls(
            id=_matching(_ID, body.get("id"), "The event has no usable `id`."),
            type=_matching(_NAME, body.get("type"), "The event has no usable `type`."),
            object_id=_id(subject.get("id")),
            customer=customer_of(subject) or customer_of(data.get("previous_attributes")),
            invoice=invoice_of(subject),
            period=period_of(subject),
            echo=_is_ours(body.get("request")),
        )

    @property
    def effect(self) -> Effect | None:
        """The effect of the type; None for a type that the gateway does not use."""
        return EFFECTS.get(self.type)

    @property
    def subject(self) -> str:
        """The key by which pending events are grouped and processed together."""
        return self.invoice or self.object_id or self.id

    def edits_draft(self, invoice: str | None) -> bool:
        """Return True if somebody may have edited or deleted the draft *invoice*, and no more than that."""
        return self.invoice == invoice and self.type in ("invoice.updated", "invoice.deleted")

    @property
    def stripe_path(self) -> str | None:
        """The path to read the object from, if the event does not name its customer."""
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
        if owner is None and self.effect is not _CATALOG_CHANGED:
            owner = entries.ANY_CUSTOMER
        named = (name for name in (self.invoice, owner) if name is not None)
        return (*named, *self.effect.generations)


def invoice_of(body: Mapping[str, Any]) -> str | None:
    """The id of the invoice that the Stripe object *body* is or belongs to."""
    return _id(body.get("id"), "in_") or _id(body.get("invoice"), "in_")


def customer_of(body: object) -> CustomerId | None:
    """The id of the customer that the Stripe object *body* is or belongs to."""
    if not isinstance(body, dict):
        return None
    customer = _id(body.get("id"), "cus_") or _id(body.get("customer"), "cus_")
    return None if customer is None else CustomerId(customer)


def _expand_thin_event(thin: Mapping[str, Any]) -> Mapping[str, Any]:
    """A thin event in the format of a full one whose object has only an id."""
    kind = thin.get("type")
    return {
        "id": thin.get("id"),
        "type": kind.removeprefix("v1.") if isinstance(kind, str) else None,
        "data": {"object": thin.get("related_object")},
        "request": _mapping(thin.get("reason")).get("request"),
    }


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _matching(pattern: re.Pattern[str], value: object, message: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise InvalidEvent(message)
    return value


def _id(value: object, prefix: str = "") -> str | None:
    """*value* if it is a Stripe id with *prefix*, else None."""
    if isinstance(value, str) and value.startswith(prefix) and _ID.fullmatch(value):
        return value
    return None


def _is_ours(request: object) -> bool:
    key = request.get("idempotency_key") if isinstance(request, dict) else None
    return isinstance(key, str) and key.startswith(IDEMPOTENCY_PREFIX)
