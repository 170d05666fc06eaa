"""The event parser: it yields the same references as parsing the whole event."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from billing.events.effects import EventRef, InvalidEvent
from tests.webhooks.conftest import invoice_event
from webhooks.event_parser import parse_event

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["cus_1", "in_1", "gw1:x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)
ID = st.sampled_from(["cus_1", "cus_2", "in_1", "in_2"]) | ANYTHING
METADATA = st.just({"gw_period": "2026-11"}) | ANYTHING
PARTS = {"id": ID, "customer": ID, "invoice": ID, "metadata": METADATA, "email": ANYTHING}
OBJECT = st.fixed_dictionaries({}, optional=PARTS)
KEY = st.fixed_dictionaries({"idempotency_key": st.just("gw1:x") | ANYTHING}) | ANYTHING
MORE = {
    "account": ANYTHING,
    "api_version": ANYTHING,
    "created": ANYTHING,
    "request": KEY,
    "reason": st.fixed_dictionaries({"request": KEY}),
    "related_object": OBJECT,
}
EVENT = st.fixed_dictionaries(
    {
        "id": st.just("evt_1"),
        "object": st.sampled_from(["event", "v2.core.event"]),
        "type": st.just("invoice.paid"),
        "data": st.fixed_dictionaries({"object": OBJECT}, optional={"previous_attributes": OBJECT}),
    },
    optional=MORE,
)
MAIMED = st.builds(
    lambda event, name, value: event | {name: value},
    EVENT,
    st.sampled_from([*MORE, "id", "object", "type", "data"]),
    ANYTHING,
)


def result_of(event: Any) -> EventRef | str:
    """The reference to *event*, or the reason why it is invalid."""
    try:
        return EventRef.from_payload(event)
    except InvalidEvent as error:
        return str(error)


CREDITED = invoice_event(data={"object": {"id": "cn_1", "invoice": "in_1"}})
THIN = {
    "id": "evt_1",
    "object": "v2.core.event",
    "type": "v1.invoice.paid",
    "related_object": {"id": "in_1"},
    "reason": {"request": {"idempotency_key": "gw1:x"}},
}


@example(CREDITED)
@example(THIN)
@given(EVENT | MAIMED | ANYTHING)
def test_parser_keeps_every_field_that_is_read(event: Any) -> None:
    """A field that the parser drops would be a change that is never processed."""
    body = json.dumps(event).encode()

    parsed, whole = parse_event(body), orjson.loads(body)

    assert result_of(parsed) == result_of(whole)
    if isinstance(whole, dict):
        for field in ("account", "api_version", "livemode"):
            assert parsed.get(field) == whole.get(field)


@pytest.mark.parametrize("broken", [b"\xff", b'"', b"\x00"])
def test_invalid_json_in_a_skipped_part_is_rejected(broken: bytes) -> None:
    """Bytes that are not JSON were not sent by Stripe."""
    body = orjson.dumps(invoice_event()).replace(b"ann@", b"ann" + broken)

    with pytest.raises(orjson.JSONDecodeError):
        parse_event(body)
