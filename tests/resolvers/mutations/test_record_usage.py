"""`recordUsage`: the GraphQL interface of usage ingestion."""

from typing import Any

import pytest

from billing.usage_validation import QUANTITY_FORMAT, TIMESTAMP_FORMAT
from tests.resolvers.conftest import METERING, SUPPORT, ApiHarness

RECORD = """mutation ($deltas: [UsageDeltaInput!]!) { recordUsage(input: {deltas: $deltas}) {
  accepted duplicates rejected { id error { code message path } } durability ledgerEpoch errors { code path } } }"""


def raw_delta(customer: str, delta_id: str = "d1", **changed: Any) -> dict[str, Any]:
    """A `UsageDeltaInput`, with some fields changed."""
    given = {"id": delta_id, "customerId": customer, "sku": "egress-gb", "quantity": "1.5"}
    return {**given, "occurredAt": "2026-11-01T02:00:00+01:00", **changed}


async def record(api: ApiHarness, *deltas: dict[str, Any]) -> dict[str, Any]:
    """Send the deltas as a metering service and return the payload."""
    answer: dict[str, Any] = (await api.query(METERING, RECORD, deltas=list(deltas)))["recordUsage"]
    return answer


async def test_usage_is_counted_once_per_id(api: ApiHarness) -> None:
    """Metering services retry; a customer must not pay twice."""
    customer = await api.shop.customer()
    now = api.now()

    first = await record(
        api, raw_delta(customer, occurredAt=now), raw_delta(customer, "d2", occurredAt=now)
    )
    second = await record(api, raw_delta(customer, occurredAt=now))

    assert (first["accepted"], first["duplicates"], first["rejected"]) == (2, 0, [])
    assert (second["accepted"], second["duplicates"]) == (0, 1)
    assert (first["durability"], first["errors"]) == ("FSYNCED", [])
    assert first["ledgerEpoch"] == second["ledgerEpoch"] != ""


async def test_invalid_delta_does_not_affect_the_others(api: ApiHarness) -> None:
    """Each delta is accepted or rejected on its own; the path names the invalid field."""
    customer = await api.shop.customer()
    now = api.now()

    answer = await record(
        api,
        raw_delta(customer, "good", occurredAt=now),
        raw_delta(customer, "sku", sku="unheard-of", occurredAt=now),
        raw_delta("cus_absent", "who", occurredAt=now),
        raw_delta(customer, "old", occurredAt="2020-01-01T00:00:00Z"),
        raw_delta(customer, "long", quantity="0.0000000000001", occurredAt=now),
    )

    assert answer["accepted"] == 1
    refused = {
        delta["id"]: (delta["error"]["code"], delta["error"]["path"])
        for delta in answer["rejected"]
    }
    assert refused == {
        "sku": ("UNKNOWN_SKU", ["sku"]),
        "who": ("NOT_FOUND", ["customerId"]),
        "old": ("INVALID_INPUT", ["occurredAt"]),
        "long": ("INVALID_INPUT", ["quantity"]),
    }


async def test_sku_whose_price_does_not_multiply_is_rejected_alone(api: ApiHarness) -> None:
    """The code tells a metering service that the catalog at Stripe has to change."""
    customer = await api.shop.customer()
    await api.shop.sell("packages", transform_quantity={"divide_by": 1000, "round": "up"})
    now = api.now()

    answer = await record(
        api,
        raw_delta(customer, "good", occurredAt=now),
        raw_delta(customer, "package", sku="packages", occurredAt=now),
    )

    assert answer["accepted"] == 1
    [rejected] = answer["rejected"]
    assert (rejected["id"], rejected["error"]["code"]) == ("package", "UNUSABLE_PRICE")
    assert rejected["error"]["path"] == ["sku"]


MALFORMED = [
    ("quantity", 0.1, QUANTITY_FORMAT),
    ("quantity", 7, QUANTITY_FORMAT),
    ("quantity", "1e3", QUANTITY_FORMAT),
    ("quantity", ["1"], QUANTITY_FORMAT),
    ("occurredAt", "yesterday", TIMESTAMP_FORMAT),
    ("occurredAt", "2026-11-22T09:30:00", TIMESTAMP_FORMAT),
    ("occurredAt", 1_700_000_000, TIMESTAMP_FORMAT),
]


async def test_malformed_value_is_rejected_with_the_expected_format(api: ApiHarness) -> None:
    """A float was rounded by the client already, so it is rejected; valid deltas of the batch are counted."""
    customer = await api.shop.customer()
    now = api.now()
    bad = [
        {**raw_delta(customer, str(n), occurredAt=now), field: value}
        for n, (field, value, _) in enumerate(MALFORMED)
    ]

    answer = await record(api, *bad, raw_delta(customer, "good", occurredAt=now))

    assert (answer["accepted"], answer["errors"]) == (1, [])
    assert answer["rejected"] == [
        {"id": str(n), "error": {"code": "INVALID_INPUT", "message": form, "path": [field]}}
        for n, (field, _, form) in enumerate(MALFORMED)
    ]


@pytest.mark.parametrize("quantity", ['"1e3"', "1.5", "$q"])
async def test_malformed_quantity_is_rejected_in_literals_and_variables(
    api: ApiHarness, quantity: str
) -> None:
    """The rejection is the same for a literal in the document and for a variable."""
    customer = await api.shop.customer()
    declared = "($q: Decimal!)" if quantity == "$q" else ""
    document = f"""mutation {declared} {{ recordUsage(input: {{deltas: [{{
        id: "d", customerId: "{customer}", sku: "egress-gb", quantity: {quantity}, occurredAt: "{api.now()}"
    }}]}}) {{ rejected {{ error {{ message }} }} }} }}"""

    answer = await api.query(METERING, document, **({"q": "many"} if declared else {}))

    assert answer["recordUsage"]["rejected"] == [{"error": {"message": QUANTITY_FORMAT}}]


async def test_drift_report_counts_conflicting_deltas(api: ApiHarness) -> None:
    """A client that reuses ids with other content loses usage; Support sees how often that happened."""
    customer = await api.shop.customer()
    now = api.now()
    for quantity in ("5", "6", "7"):
        await record(api, raw_delta(customer, "same", quantity=quantity, occurredAt=now))

    document = "query ($id: ID!) { customer(id: $id) { drift { conflictingDeltas } } }"
    answer = await api.query(SUPPORT, document, id=customer)

    assert answer["customer"]["drift"] == {"conflictingDeltas": 2}
