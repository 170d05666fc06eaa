"""Mutations on a customer that the viewer may not see."""

import pytest

from tests.resolvers.conftest import OTHER_CUSTOMER, ApiHarness
from tests.support.mutations import PORTAL, SYNC

RETURN_URL = "https://fly.example/billing"


@pytest.mark.parametrize("mutation", [SYNC, PORTAL])
async def test_foreign_and_absent_customer_get_the_same_error(
    api: ApiHarness, mutation: str
) -> None:
    """The error is the same for a customer that exists and for one that does not."""
    customer = await api.shop.customer()

    def refusal(data: dict[str, dict[str, object]], who: str) -> str:
        [payload] = data.values()
        return str(payload["errors"]).replace(who, "cus_X")

    foreign = await api.query(OTHER_CUSTOMER, mutation, id=customer, url=RETURN_URL)
    absent = await api.query(OTHER_CUSTOMER, mutation, id="cus_absent", url=RETURN_URL)

    assert refusal(foreign, customer) == refusal(absent, "cus_absent")
    assert "NOT_FOUND" in refusal(foreign, customer)
