"""The usage sample as customers, prices and deltas; ``data/README.md`` says what it contains.

One customer per sub-account, one price per SKU (its first list price in the file: three SKUs of the
sample have two), one delta per row. The sample's month is scaled to the part of the open period that
has passed, so that no delta lies in the future.
"""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

SAMPLE = Path(__file__).parent / "data" / "focus_sample.csv"
SAMPLE_START = datetime(2024, 9, 1, tzinfo=UTC)
SAMPLE_END = datetime(2024, 10, 1, tzinfo=UTC)
UNIT_LABEL = 12  # Stripe's longest unit label


@dataclass(frozen=True, slots=True)
class SampleCustomer:
    """A sub-account; *slug* names its organization."""

    account: str
    name: str
    slug: str


@dataclass(frozen=True, slots=True)
class SamplePrice:
    """A SKU; *unit_amount* in US cents, up to 12 decimals. *charge* is the first text that bills it."""

    sku: str
    name: str
    unit: str
    unit_amount: Decimal
    charge: str
    region: str | None


@dataclass(frozen=True, slots=True)
class SampleDelta:
    """A row of usage; *moment* lies in the open period."""

    number: int
    account: str
    sku: str
    quantity: Decimal
    moment: datetime
    app: str | None
    region: str | None
    organization: str | None


def customers() -> list[SampleCustomer]:
    """Return every sub-account once, in the file's order."""
    found: dict[str, SampleCustomer] = {}
    for row in _rows():
        account = row["SubAccountId"]
        if account not in found:
            slug = re.sub(r"[^a-z0-9]+", "-", row["SubAccountName"].lower()).strip("-")
            found[account] = SampleCustomer(
                account, row["SubAccountName"], f"{slug}-{len(found) + 1}"
            )
    return list(found.values())


def prices() -> list[SamplePrice]:
    """Return every SKU once, in the file's order; without a list price its amount is 0."""
    found: dict[str, SamplePrice] = {}
    for row in _rows():
        sku = row["SkuId"]
        if sku not in found:
            dollars = Decimal("0" if row["ListUnitPrice"] == "NULL" else row["ListUnitPrice"])
            name = f"{row['ServiceName']} ({sku})"
            charge = f"{row['ServiceName']}: {row['ChargeDescription']}"
            found[sku] = SamplePrice(
                sku, name, row["PricingUnit"], dollars * 100, charge, _region(row)
            )
    return list(found.values())


def deltas(period_start: datetime, anchor: datetime) -> list[SampleDelta]:
    """Return every row, its time scaled from the sample's month to *period_start* … *anchor*."""
    return [
        _delta(number, row, period_start, anchor) for number, row in enumerate(_rows(), start=1)
    ]


def _delta(number: int, row: dict[str, str], start: datetime, anchor: datetime) -> SampleDelta:
    happened = datetime.fromisoformat(row["ChargePeriodStart"]).replace(tzinfo=UTC)
    moment = start + (happened - SAMPLE_START) * ((anchor - start) / (SAMPLE_END - SAMPLE_START))
    tags = json.loads(row["Tags"]) if row["Tags"] != "NULL" else {}
    return SampleDelta(
        number=number,
        account=row["SubAccountId"],
        sku=row["SkuId"],
        quantity=Decimal(row["PricingQuantity"]),
        moment=moment.replace(microsecond=0),
        app=tags.get("application"),
        region=_region(row),
        organization=tags.get("business_unit"),
    )


def _region(row: dict[str, str]) -> str | None:
    return None if row["RegionId"] == "NULL" else row["RegionId"]


def _rows() -> Iterator[dict[str, str]]:
    with SAMPLE.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)
