"""What is kept of an event, and what follows from each type."""

from typing import Any, get_args

import pytest
from stripe.params import WebhookEndpointCreateParams

from billing.events.effects import EFFECTS, Duty, NotAnEvent, Notice
from billing.usage import Period


def event(kind: str, subject: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An event as Stripe sends it."""
    return {"id": "evt_1", "object": "event", "type": kind, "data": {"object": subject}, **more}


INVOICE = {
    "id": "in_1",
    "object": "invoice",
    "customer": "cus_1",
    "metadata": {"gw_period": "2026-11"},
    "total": 4200,
}


def test_an_invoice_event_names_the_invoice_its_customer_and_our_period() -> None:
    """These three find everything that shows the invoice, and the period that it bills."""
    notice = Notice.of(event("invoice.updated", INVOICE))

    assert notice == Notice(
        "evt_1", "invoice.updated", "in_1", "cus_1", "in_1", Period(2026, 11), echo=False
    )
    assert notice.generations == ("in_1", "cus_1")
    assert notice.effect is not None
    assert notice.effect.duty is Duty.LOOK


def test_a_write_of_ours_is_recognised_by_its_idempotency_key() -> None:
    """Whoever wrote has looked: a flush must not set off another one."""
    ours = {"id": "req_1", "idempotency_key": "gw1:cus_1:2026-11:1:7:0"}
    theirs = {"id": "req_2", "idempotency_key": "stripe-node-retry-1"}

    assert Notice.of(event("invoice.updated", INVOICE, request=ours)).echo
    assert not Notice.of(event("invoice.updated", INVOICE, request=theirs)).echo
    assert not Notice.of(event("invoice.updated", INVOICE, request="req_of_an_old_version")).echo


def test_a_thin_event_names_its_object_and_nothing_else() -> None:
    """An endpoint may have been made to send these; whose the object is will be read from Stripe."""
    thin = {
        "id": "evt_test_1",
        "object": "v2.core.event",
        "type": "v1.invoice.updated",
        "related_object": {"id": "in_1", "type": "invoice", "url": "/v1/invoices/in_1"},
        "reason": {"type": "request", "request": {"id": "req_1", "idempotency_key": "gw1:x"}},
    }

    assert Notice.of(thin) == Notice(
        "evt_test_1", "invoice.updated", "in_1", None, "in_1", None, echo=True
    )
    assert not Notice.of(thin | {"reason": None}).echo
    with pytest.raises(NotAnEvent):
        Notice.of(thin | {"related_object": None})


def test_a_detached_payment_method_still_names_its_customer() -> None:
    """Stripe shows the customer as null then; its panel, and lists with its card, have to forget that."""
    detached = event("payment_method.detached", {"id": "pm_1", "customer": None})
    detached["data"]["previous_attributes"] = {"customer": "cus_1"}

    assert Notice.of(detached).generations == ("cus_1", "customers")


def test_what_names_no_owner_may_be_anybodys() -> None:
    """Its owner's lists show it, and nobody knows yet whose they are; of a price nobody is the owner."""
    card = event("payment_method.detached", {"id": "pm_1", "customer": None})
    invoice = event("invoice.updated", {"id": "in_1"})
    price = event("price.updated", {"id": "price_1"})

    assert Notice.of(card).generations == ("anybody", "customers")
    assert Notice.of(invoice).generations == ("in_1", "anybody")
    assert Notice.of(price).generations == ("catalogue",)


def test_a_credit_note_touches_its_invoice() -> None:
    """What is still due on the invoice has changed, though Stripe speaks of the note."""
    note = {"id": "cn_1", "object": "credit_note", "customer": "cus_1", "invoice": "in_1"}

    assert Notice.of(event("credit_note.created", note)).generations == ("in_1", "cus_1")


def test_a_new_customer_changes_the_lists_of_customers() -> None:
    """Support looks customers up by e-mail; a list made before must not stand."""
    assert Notice.of(event("customer.created", {"id": "cus_1"})).generations == (
        "cus_1",
        "customers",
    )


@pytest.mark.parametrize("kind", ["price.updated", "product.updated"])
def test_a_price_or_product_touches_the_catalogue_and_nothing_else(kind: str) -> None:
    """A description that was edited must not make every customer's panel read Stripe again."""
    assert Notice.of(event(kind, {"id": "price_1"})).generations == ("catalogue",)


def test_an_unknown_type_has_no_effect() -> None:
    """Stripe invents new types; nobody has to act on them."""
    notice = Notice.of(event("treasury.flow.created", {"id": "trf_1", "customer": "cus_1"}))

    assert notice.effect is None
    assert notice.generations == ()


@pytest.mark.parametrize(
    "subject",
    [
        {"id": "in_1", "customer": {"id": "cus_1"}, "metadata": {"gw_period": "2026-13"}},
        {"id": "in_1", "metadata": {"gw_period": 7}, "customer": 7},
        {"id": "in_1", "metadata": ["gw_period"], "customer": "cus_1 \n"},
        {"id": "in_1", "metadata": {"gw_period": "²026-11"}, "customer": "pm_1"},
    ],
)
def test_a_shape_of_another_version_yields_no_guess(subject: dict[str, Any]) -> None:
    """What cannot be recognised is left open; the worker reads the invoice instead."""
    notice = Notice.of(event("invoice.updated", subject))

    assert (notice.invoice, notice.customer, notice.period) == ("in_1", None, None)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "evt_1",
        7,
        {},
        {"id": "evt_1", "type": "invoice.paid"},
        {"id": "evt_1", "type": "invoice.paid", "data": []},
        {"id": "evt_1", "type": "invoice.paid", "data": {"object": "in_1"}},
        {"id": "evt_1", "type": 7, "data": {"object": {}}},
        {"id": "evt_1\n", "type": "invoice.paid", "data": {"object": {}}},
        {"id": "in_1", "type": "invoice.paid", "data": {"object": {}}},
        {"id": "evt_" + "1" * 300, "type": "invoice.paid", "data": {"object": {}}},
        {"id": "evt_1", "type": "Invoice Paid", "data": {"object": {}}},
    ],
)
def test_what_is_no_event_is_said_to_be_none(body: object) -> None:
    """The sender is told what is missing instead of the inbox keeping something unusable."""
    with pytest.raises(NotAnEvent, match=r"^The .*\.$"):
        Notice.of(body)


def test_every_type_in_the_table_exists_at_stripe() -> None:
    """A type that is misspelt would be refused by Stripe, or never arrive."""
    known = set(
        get_args(get_args(WebhookEndpointCreateParams.__annotations__["enabled_events"])[0])
    )

    assert known
    assert EFFECTS.keys() <= known
