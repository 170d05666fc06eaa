"""The reader: from the cache or from Stripe, with freshness and dependencies."""

from typing import Any

import pytest

from billing.budget import Lane
from billing.cache.local_cache import Source
from billing.errors import ErrorCode, StripeRejected
from billing.pagination import PageRequest
from billing.services import Services
from billing.stripe import resources
from billing.stripe.reader import StripeReader, UnknownCursor
from tests.support.stripe_catalog import Shop


@pytest.fixture
async def customer(services: Services) -> str:
    """A customer at Stripe."""
    return await Shop(services).customer()


@pytest.fixture
def reader(services: Services) -> StripeReader:
    """The reader of the services."""
    return services.stripe_reader


async def test_second_read_comes_from_the_cache(reader: StripeReader, customer: str) -> None:
    """A result says where it came from, what it took, and under which generations it is valid."""
    resource = resources.customer(customer)

    first = await reader.get(resource, Lane.CUSTOMER)
    second = await reader.get(resource, Lane.CUSTOMER)

    assert (first.source, first.calls) == (Source.STRIPE, 1)
    assert (second.source, second.calls) == (Source.CACHE, 0)
    assert (first.value, first.fetched_at) == (second.value, second.fetched_at)
    assert first.generations == second.generations
    assert set(first.generations or ()) == set(resource.entry.generations)


async def test_absent_object_is_none(reader: StripeReader) -> None:
    """Stripe's 404 is a result like any other, and cached for a moment."""
    resource = resources.invoice("in_absent")

    results = [await reader.get(resource, Lane.CUSTOMER) for _ in range(2)]

    assert [(result.value, result.calls) for result in results] == [(None, 1), (None, 0)]


async def test_other_rejections_are_raised(services: Services) -> None:
    """A wrong key must not look like an absent customer."""
    reader = StripeReader(_Rejecting(401), services.cache)  # type: ignore[arg-type]

    with pytest.raises(StripeRejected):
        await reader.get(resources.customer("cus_1"), Lane.CUSTOMER)


async def test_uncached_resource_is_read_from_stripe(reader: StripeReader, customer: str) -> None:
    """It has no generations, so a response that shows it must not be cached."""
    resource = resources.customer_search('name~"acme"', 5)

    results = [await reader.get(resource, Lane.SUPPORT) for _ in range(2)]

    assert not resource.is_cached
    assert [(result.source, result.calls, result.generations) for result in results] == [
        (Source.STRIPE, 1, None)
    ] * 2


async def test_get_fresh_bypasses_the_cache(reader: StripeReader, customer: str) -> None:
    """A hidden object takes a read of Stripe, in the cache or not."""
    resource = resources.customer(customer)
    cached = await reader.get(resource, Lane.CUSTOMER)

    fresh = await reader.get_fresh(resource, Lane.CUSTOMER)

    assert (fresh.value, fresh.source, fresh.calls) == (cached.value, Source.STRIPE, 1)
    assert fresh.generations is None


@pytest.mark.parametrize(
    ("page", "argument"),
    [(PageRequest(2, "in_absent"), "after"), (PageRequest(2, before="in_absent"), "before")],
)
async def test_unknown_cursor_is_refused(
    reader: StripeReader, customer: str, page: PageRequest, argument: str
) -> None:
    """The error names the argument, because Stripe's own would blame the gateway."""
    with pytest.raises(UnknownCursor, match=f"`{argument}`") as raised:
        await reader.get(resources.invoices(customer, page, None), Lane.CUSTOMER)

    assert (raised.value.code, raised.value.path) == (ErrorCode.INVALID_INPUT, (argument,))


async def test_deleted_customer_is_read_without_expansion(services: Services) -> None:
    """Stripe may reject `expand` for a deleted object; its id is still a value."""
    api = _Rejecting(400, {"id": "cus_1", "deleted": True})
    reader = StripeReader(api, services.cache)  # type: ignore[arg-type]

    result = await reader.get(resources.customer_with_card("cus_1"), Lane.CUSTOMER)

    assert result.value is not None
    assert result.value.customer.deleted
    assert api.params == [{"expand": [resources.DEFAULT_CARD]}, {}]


async def test_owner_of_an_object_without_a_record(
    services: Services, reader: StripeReader, customer: str
) -> None:
    """Invoice items, charges and the like are read for their customer's id alone."""
    params = {"customer": customer, "amount": 900, "currency": "usd"}
    item = await services.stripe.write("/v1/invoiceitems", params, key="item", lane=Lane.SUPPORT)

    result = await reader.get(resources.owner("ii", item.body["id"]), Lane.SUPPORT)

    assert result.value == customer


async def test_remote_invoice_has_all_lines(
    services: Services, reader: StripeReader, customer: str
) -> None:
    """Stripe embeds ten; drift of the eleventh must show."""
    draft = await services.stripe.write(
        "/v1/invoices", {"customer": customer}, key="draft", lane=Lane.SUPPORT
    )
    lines = [{"amount": 100 + number, "description": f"{number}"} for number in range(12)]
    path = f"/v1/invoices/{draft.body['id']}/add_lines"
    await services.stripe.write(path, {"lines": lines}, key="lines", lane=Lane.SUPPORT)

    result = await reader.get(resources.remote_invoice(draft.body["id"]), Lane.SUPPORT)

    assert result.value is not None
    assert len(result.value.lines) == 12
    assert result.calls == 2


class _Rejecting:
    """A Stripe that rejects reads with *status*, but those without parameters if it has a *body*."""

    def __init__(self, status: int, body: dict[str, Any] | None = None) -> None:
        self.status = status
        self.body = body
        self.params: list[dict[str, Any]] = []

    async def read(self, path: str, params: dict[str, Any], *, lane: Lane) -> dict[str, Any]:
        """Record *params*; reject or return the body."""
        assert path
        assert lane
        self.params.append(params)
        if self.body is None or params:
            raise StripeRejected(
                "No.", status=self.status, stripe_code=None, request_id=None, replayed=False
            )
        return self.body
