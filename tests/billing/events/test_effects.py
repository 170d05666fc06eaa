"""References to events, and the effects of each event type."""

from typing import Any, get_args

import pytest
from stripe.params import WebhookEndpointCreateParams

from billing.events.effects import EFFECTS, EventRef, FollowUp, InvalidEvent
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


def test_invoice_event_has_invoice_customer_and_period() -> None:
    """These three lead to every view of the invoice, and to the period it bills."""
    ref = EventRef.from_payload(event("invoice.updated", INVOICE))

    assert ref == EventRef(
        "evt_1", "invoice.updated", "in_1", "cus_1", "in_1", Period(2026, 11), echo=False
    )
    assert ref.generations == ("in_1", "cus_1")
    assert ref.effect is not None
    assert ref.effect.follow_up is FollowUp.VERIFY


def test_echo_is_recognised_by_its_idempotency_key() -> None:
    """A flush must not cause another one."""
    ours = {"id": "req_1", "idempotency_key": "gw1:cus_1:2026-11:1:7:0"}
    theirs = {"id": "req_2", "idempotency_key": "stripe-node-retry-1"}

    assert EventRef.from_payload(event("invoice.updated", INVOICE, request=ours)).echo
    assert not EventRef.from_payload(event("invoice.updated", INVOICE, request=theirs)).echo
    assert not EventRef.from_payload(
        event("invoice.updated", INVOICE, request="req_of_an_old_version")
    ).echo


def test_thin_event_has_only_its_object() -> None:
    """An endpoint may send these; the customer is then read from Stripe."""
    thin = {
        "id": "evt_test_1",
        "object": "v2.core.event",
        "type": "v1.invoice.updated",
        "related_object": {"id": "in_1", "type": "invoice", "url": "/v1/invoices/in_1"},
        "reason": {"type": "request", "request": {"id": "req_1", "idempotency_key": "gw1:x"}},
    }

    assert EventRef.from_payload(thin) == EventRef(
        "evt_test_1", "invoice.updated", "in_1", None, "in_1", None, echo=True
    )
    assert not EventRef.from_payload(thin | {"reason": None}).echo


def test_detached_payment_method_has_its_previous_customer() -> None:
    """Stripe sends a null customer then; its panel and the lists with its card change."""
    detached = event("payment_method.detached", {"id": "pm_1", "customer": None})
    detached["data"]["previous_attributes"] = {"customer": "cus_1"}

    assert EventRef.from_payload(detached).generations == ("cus_1", "customers")


def test_event_without_customer_invalidates_any_customer() -> None:
    """Lists of the unknown customer contain the object; a price has no customer."""
    card = event("payment_method.detached", {"id": "pm_1", "customer": None})
    invoice = event("invoice.updated", {"id": "in_1"})
    price = event("price.updated", {"id": "price_1"})

    assert EventRef.from_payload(card).generations == ("anybody", "customers")
    assert EventRef.from_payload(invoice).generations == ("in_1", "anybody")
    assert EventRef.from_payload(price).generations == ("catalogue",)


def test_credit_note_invalidates_its_invoice() -> None:
    """The amount due on the invoice has changed."""
    note = {"id": "cn_1", "object": "credit_note", "customer": "cus_1", "invoice": "in_1"}

    assert EventRef.from_payload(event("credit_note.created", note)).generations == (
        "in_1",
        "cus_1",
    )


def test_new_customer_invalidates_customer_lists() -> None:
    """Support finds customers by e-mail; an earlier list must not stay."""
    assert EventRef.from_payload(event("customer.created", {"id": "cus_1"})).generations == (
        "cus_1",
        "customers",
    )


@pytest.mark.parametrize("kind", ["price.updated", "product.updated"])
def test_price_or_product_invalidates_only_the_catalog(kind: str) -> None:
    """An edited description must not make every panel read Stripe again."""
    assert EventRef.from_payload(event(kind, {"id": "price_1"})).generations == ("catalogue",)


def test_unknown_type_has_no_effect() -> None:
    """Stripe adds new types; they need no work."""
    ref = EventRef.from_payload(
        event("treasury.flow.created", {"id": "trf_1", "customer": "cus_1"})
    )

    assert ref.effect is None
    assert ref.generations == ()


@pytest.mark.parametrize(
    "subject",
    [
        {"id": "in_1", "customer": {"id": "cus_1"}, "metadata": {"gw_period": "2026-13"}},
        {"id": "in_1", "metadata": {"gw_period": 7}, "customer": 7},
        {"id": "in_1", "metadata": ["gw_period"], "customer": "cus_1 \n"},
        {"id": "in_1", "metadata": {"gw_period": "²026-11"}, "customer": "pm_1"},
    ],
)
def test_unknown_format_yields_no_ids(subject: dict[str, Any]) -> None:
    """Of another API version, unrecognised ids stay None; the worker reads the invoice instead."""
    ref = EventRef.from_payload(event("invoice.updated", subject))

    assert (ref.invoice, ref.customer, ref.period) == ("in_1", None, None)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"data": None},
        {"data": []},
        {"data": {}},
        {"data": {"object": None}},
        {"data": {"object": "in_1"}},
        {"object": "v2.core.event"},
        {"object": "v2.core.event", "related_object": None},
        {"object": "v2.core.event", "related_object": [], "reason": []},
    ],
)
@pytest.mark.parametrize(
    "kind",
    ["billing.meter.no_meter_found", "v2.core.account[requirements].updated", "invoice.paid"],
)
def test_event_without_an_object_is_an_event(kind: str, more: dict[str, Any]) -> None:
    """Stripe would send it again for days, and disable the endpoint in the end."""
    ref = EventRef.from_payload({"id": "evt_1", "type": kind, **more})

    assert (ref.id, ref.type, ref.object_id, ref.customer) == ("evt_1", kind, None, None)
    assert ref.effect is None or ref.generations == ("anybody",)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "evt_1",
        7,
        {},
        {"id": "evt_1"},
        {"id": "evt_1", "object": "v2.core.event"},
        {"type": "invoice.paid"},
        {"id": "evt_1", "type": 7, "data": {"object": {}}},
        {"id": "evt_1\n", "type": "invoice.paid", "data": {"object": {}}},
        {"id": "evt_" + "1" * 300, "type": "invoice.paid", "data": {"object": {}}},
        {"id": "evt_1", "type": "Invoice Paid", "data": {"object": {}}},
    ],
)
def test_invalid_event_is_rejected_with_a_reason(body: object) -> None:
    """The sender learns what is missing, and the inbox stores nothing unusable."""
    with pytest.raises(InvalidEvent, match=r"^The .*\.$"):
        EventRef.from_payload(body)


def test_every_type_in_the_table_exists_at_stripe() -> None:
    """Stripe would refuse a misspelt type, or never send it."""
    known = set(
        get_args(get_args(WebhookEndpointCreateParams.__annotations__["enabled_events"])[0])
    )

    assert known
    assert EFFECTS.keys() <= known
