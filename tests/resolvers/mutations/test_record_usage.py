"""Metering reports usage over GraphQL; the rules are `billing.usage_ingestion`'s own."""

from typing import Any

import pytest

from billing.usage_validation import MOMENT_FORM, QUANTITY_FORM
from tests.resolvers.conftest import METERING, SUPPORT, Desk

RECORD = """mutation ($deltas: [UsageDeltaInput!]!) { recordUsage(input: {deltas: $deltas}) {
  accepted duplicates rejected { id error { code message path } } durability ledgerEpoch errors { code path } } }"""


def reported(customer: str, delta_id: str = "d1", **changed: Any) -> dict[str, Any]:
    """A delta as a metering service sends it."""
    given = {"id": delta_id, "customerId": customer, "sku": "egress-gb", "quantity": "1.5"}
    return {**given, "occurredAt": "2026-11-01T02:00:00+01:00", **changed}


async def record(desk: Desk, *deltas: dict[str, Any]) -> dict[str, Any]:
    """What metering is answered."""
    answer: dict[str, Any] = (await desk.ask(METERING, RECORD, deltas=list(deltas)))["recordUsage"]
    return answer


async def test_usage_counts_once_however_often_it_is_sent(desk: Desk) -> None:
    """Reporters retry; customers must not pay for it."""
    customer = await desk.shop.customer()
    now = desk.now()

    first = await record(
        desk, reported(customer, occurredAt=now), reported(customer, "d2", occurredAt=now)
    )
    again = await record(desk, reported(customer, occurredAt=now))

    assert (first["accepted"], first["duplicates"], first["rejected"]) == (2, 0, [])
    assert (again["accepted"], again["duplicates"]) == (0, 1)
    assert (first["durability"], first["errors"]) == ("FSYNCED", [])
    assert first["ledgerEpoch"] == again["ledgerEpoch"] != ""


async def test_a_bad_delta_never_fails_its_neighbours(desk: Desk) -> None:
    """Each is answered on its own, with the field that is wrong."""
    customer = await desk.shop.customer()
    now = desk.now()

    answer = await record(
        desk,
        reported(customer, "good", occurredAt=now),
        reported(customer, "sku", sku="unheard-of", occurredAt=now),
        reported("cus_absent", "who", occurredAt=now),
        reported(customer, "old", occurredAt="2020-01-01T00:00:00Z"),
        reported(customer, "long", quantity="0.0000000000001", occurredAt=now),
    )

    assert answer["accepted"] == 1
    refused = {
        each["id"]: (each["error"]["code"], each["error"]["path"]) for each in answer["rejected"]
    }
    assert refused == {
        "sku": ("UNKNOWN_SKU", ["sku"]),
        "who": ("NOT_FOUND", ["customerId"]),
        "old": ("INVALID_INPUT", ["occurredAt"]),
        "long": ("INVALID_INPUT", ["quantity"]),
    }


MALFORMED = [
    ("quantity", 0.1, QUANTITY_FORM),
    ("quantity", 7, QUANTITY_FORM),
    ("quantity", "1e3", QUANTITY_FORM),
    ("quantity", ["1"], QUANTITY_FORM),
    ("occurredAt", "yesterday", MOMENT_FORM),
    ("occurredAt", "2026-11-22T09:30:00", MOMENT_FORM),
    ("occurredAt", 1_700_000_000, MOMENT_FORM),
]


async def test_what_cannot_be_read_is_refused_with_the_form_to_write_it_in(desk: Desk) -> None:
    """A client that sends floats has rounded already; its neighbours' usage is counted all the same."""
    customer = await desk.shop.customer()
    now = desk.now()
    bad = [
        {**reported(customer, str(n), occurredAt=now), field: value}
        for n, (field, value, _) in enumerate(MALFORMED)
    ]

    answer = await record(desk, *bad, reported(customer, "good", occurredAt=now))

    assert (answer["accepted"], answer["errors"]) == (1, [])
    assert answer["rejected"] == [
        {"id": str(n), "error": {"code": "INVALID_INPUT", "message": form, "path": [field]}}
        for n, (field, _, form) in enumerate(MALFORMED)
    ]


@pytest.mark.parametrize("quantity", ['"1e3"', "1.5", "$q"])
async def test_it_is_refused_alike_wherever_it_is_written(desk: Desk, quantity: str) -> None:
    """In the document, or in a variable of its own."""
    customer = await desk.shop.customer()
    declared = "($q: Decimal!)" if quantity == "$q" else ""
    document = f"""mutation {declared} {{ recordUsage(input: {{deltas: [{{
        id: "d", customerId: "{customer}", sku: "egress-gb", quantity: {quantity}, occurredAt: "{desk.now()}"
    }}]}}) {{ rejected {{ error {{ message }} }} }} }}"""

    answer = await desk.ask(METERING, document, **({"q": "many"} if declared else {}))

    assert answer["recordUsage"]["rejected"] == [{"error": {"message": QUANTITY_FORM}}]


async def test_support_sees_how_often_an_id_came_with_other_content(desk: Desk) -> None:
    """Whoever reports so loses usage without noticing; the customer's bill is where it is asked about."""
    customer = await desk.shop.customer()
    now = desk.now()
    for quantity in ("5", "6", "7"):
        await record(desk, reported(customer, "same", quantity=quantity, occurredAt=now))

    ask = "query ($id: ID!) { customer(id: $id) { drift { conflictingDeltas } } }"
    answer = await desk.ask(SUPPORT, ask, id=customer)

    assert answer["customer"]["drift"] == {"conflictingDeltas": 2}
