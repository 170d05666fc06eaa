"""The usage sample under Fly.io's names."""

import re
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal

from demo import focus_sample, showcase

START = datetime(2026, 11, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)


def test_customers_and_prices_can_be_told_apart() -> None:
    """No two customers share a name or an id, no two prices a name or a SKU."""
    customers, prices = showcase.customers(), showcase.prices()

    assert len({customer.name for customer in customers}) == len(customers) == 73
    assert len({customer.slug for customer in customers}) == 73
    assert len({showcase.customer_id(customer.account) for customer in customers}) == 73
    assert len({price.name for price in prices}) == len({price.sku for price in prices}) == 267


def test_ids_are_those_of_the_docs() -> None:
    """An example that names a customer works on every fresh demo."""
    assert showcase.customer_id(showcase.most_used()[0]) == "cus_d8842ba0aaf4c09a0d0a7ada"


def test_rows_stay_in_proportion() -> None:
    """Each customer's quantities are the sample's, times one power of ten."""
    factors = defaultdict(set)
    for row, shown in zip(
        focus_sample.deltas(START, NOW), showcase.deltas(START, NOW), strict=True
    ):
        assert (row.number, row.account, row.moment) == (shown.number, shown.account, shown.moment)
        if row.quantity:
            factors[row.account].add(shown.quantity / row.quantity)

    assert all(len(found) == 1 for found in factors.values())
    assert {str(factor.normalize().as_tuple().digits) for [factor] in factors.values()} == {"(1,)"}


def test_apps_and_regions_are_named_as_fly_names_them() -> None:
    """Apps are slugs, regions three letters, and few rows belong to no app."""
    deltas = showcase.deltas(START, NOW)
    skus = {price.sku for price in showcase.prices()}

    assert all(re.fullmatch(r"[a-z0-9-]+", delta.app) for delta in deltas if delta.app)
    assert all(re.fullmatch(r"[a-z]{3}", delta.region) for delta in deltas if delta.region)
    assert all(delta.sku in skus and delta.quantity == Decimal(delta.quantity) for delta in deltas)
    assert sum(delta.app is None for delta in deltas) < 100
