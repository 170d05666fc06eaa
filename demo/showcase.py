"""The usage sample as a Fly.io account: its rows, prices and times, under names and in sizes that Fly has.

Each sub-account becomes one customer whose id never changes. Its quantities are multiplied by one power of
ten, so that bills spread as a host's do; amounts keep the sample's proportions. Apps, regions and items get
names in Fly's style: ``app``, ``fra``, ``Volume storage, fra``. ``data/README.md`` states the changes.
"""

import re
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from functools import cache
from hashlib import blake2b
from itertools import count

from billing.usage import CustomerId
from demo import focus_sample
from demo.focus_sample import SampleCustomer, SampleDelta, SamplePrice

QUANTITY_STEP = Decimal("1e-12")
# The least bill, in dollars, by rank: few large customers and many small ones.
LEAST_BILLS = [1_000] + [200] * 4 + [40] * 12 + [5] * 60
SECOND_NAMES = ("Labs", "Games", "Health", "Robotics")
REGIONS = {
    "us-east-1": "iad",
    "eastus": "iad",
    "eastus2": "iad",
    "us-east-2": "ord",
    "us-west-1": "sjc",
    "westus": "sjc",
    "us-west-2": "sea",
    "westus2": "sea",
    "ca-central-1": "yyz",
    "sa-east-1": "gru",
    "eu-central-1": "fra",
    "eu-west-1": "ams",
    "northeurope": "ams",
    "eu-west-2": "lhr",
    "eu-west-3": "cdg",
    "eu-north-1": "arn",
    "af-south-1": "jnb",
    "me-south-1": "bom",
    "ap-south-1": "bom",
    "ap-south-2": "bom",
    "ap-northeast-1": "nrt",
    "ap-northeast-2": "nrt",
    "ap-southeast-1": "sin",
    "ap-southeast-2": "syd",
}
MACHINE = "Machine "
MACHINE_SIZES = {
    "nano": "shared-cpu-1x",
    "micro": "shared-cpu-1x",
    "small": "shared-cpu-2x",
    "medium": "shared-cpu-4x",
    "large": "performance-1x",
    "xlarge": "performance-2x",
    "2xlarge": "performance-4x",
    "4xlarge": "performance-8x",
}
# What a charge's text says → the item's name and its role in an app's name; the first match counts.
ITEMS = (
    (r"\.(\w+) Instance Hour|per \w+\.(\w+) instance-hour", MACHINE, "api"),
    (r"[Ss]napshot", "Volume snapshots", "db"),
    (r"IOPS|MiBps|I/O", "Volume throughput", "db"),
    (r"provisioned storage|Disks|Volume|File System", "Volume storage", "db"),
    (r"Relational|DynamoDB|MySQL|Aurora", "Managed Postgres", "db"),
    (r"data transfer in|In-Bytes", "Ingress", "web"),
    (r"regional data transfer|transfer (to|from) |Inter-Region", "Private network traffic", "web"),
    (r"transfer|Out-Bytes|CloudFront|Bandwidth|Data Processed", "Egress", "cdn"),
    (r"IPv4", "Dedicated IPv4", "web"),
    (r"NAT Gateway", "Static egress IP", "web"),
    (r"Elastic Load", "Proxy capacity", "web"),
    (r"Simple Storage|Storage Accounts|Registry", "Object storage", "assets"),
    (r"Memory|RAM", "Additional memory", "worker"),
    (
        r"vCPU|ECS|Fargate|COMPUTE|Virtual Machine|Machine Learning",
        "Machine shared-cpu-1x",
        "worker",
    ),
    (r"CloudWatch|CloudTrail", "Logs and metrics", "monitor"),
    (r"Queue|Notification|Lambda|Step Functions|API", "Background jobs", "worker"),
    (r"", "Secrets and certificates", None),
)


def customer_id(account: str) -> CustomerId:
    """Return the Stripe id of a sub-account's customer, the same in every demo."""
    return CustomerId(f"cus_{blake2b(account.encode(), digest_size=12).hexdigest()}")


@cache
def customers() -> tuple[SampleCustomer, ...]:
    """Return every customer once, in the file's order; no two have the same name."""
    seen: Counter[str] = Counter()
    found = []
    for customer in focus_sample.customers():
        times, name = seen[customer.name], customer.name
        seen[name] += 1
        name = f"{name} {SECOND_NAMES[times - 1]}" if times else name
        found.append(replace(customer, name=name, slug=_slug(name)))
    return tuple(found)


@cache
def prices() -> tuple[SamplePrice, ...]:
    """Return every price once, in the file's order; its SKU is its name as a slug."""
    return tuple(_named_prices().values())


def deltas(period_start: datetime, anchor: datetime) -> list[SampleDelta]:
    """Return every row as usage of a Fly app, its time scaled to *period_start* … *anchor*."""
    factors, named = _factors(), _named_prices()
    organizations = {customer.account: customer.slug for customer in customers()}
    return [
        replace(
            row,
            sku=named[row.sku].sku,
            quantity=(row.quantity * factors[row.account]).quantize(QUANTITY_STEP),
            app=_app(_kebab(row.app or organizations[row.account]), named[row.sku].charge),
            region=REGIONS.get(row.region or ""),
            organization=_kebab(row.organization) if row.organization else None,
        )
        for row in focus_sample.deltas(period_start, anchor)
    ]


@cache
def most_used() -> tuple[str, ...]:
    """Return the sub-accounts, those with the most rows of usage first."""
    start = focus_sample.SAMPLE_START
    rows = Counter(row.account for row in focus_sample.deltas(start, start))
    return tuple(account for account, _ in rows.most_common())


@cache
def _named_prices() -> dict[str, SamplePrice]:
    """Prices by the sample's SKU."""
    taken: set[str] = set()
    named = {}
    for price in focus_sample.prices():
        region = REGIONS.get(price.region or "", "global")
        base = f"{_item(price.charge)}, {region}"
        name = next(
            name for n in count(1) if (name := base if n == 1 else f"{base}, tier {n}") not in taken
        )
        taken.add(name)
        named[price.sku] = replace(price, sku=_slug(name), name=name, region=region)
    return named


@cache
def _factors() -> dict[str, Decimal]:
    """The power of ten for each sub-account's quantities; 1 where nothing is billed."""
    amounts = {price.sku: price.unit_amount / 100 for price in focus_sample.prices()}
    bills: defaultdict[str, Decimal] = defaultdict(Decimal)
    start = focus_sample.SAMPLE_START
    for row in focus_sample.deltas(start, start):
        bills[row.account] += row.quantity * amounts[row.sku]
    ranked = sorted(bills, key=lambda account: -bills[account])
    return {
        account: _power_of_ten(least / bills[account]) if bills[account] > 0 else Decimal(1)
        for account, least in zip(ranked, LEAST_BILLS, strict=False)
    }


def _power_of_ten(least: Decimal) -> Decimal:
    """Return the smallest power of ten, 1 or more, that is not below *least*."""
    return next(power for n in count() if (power := Decimal(10) ** n) >= least)


def _item(charge: str) -> str:
    pattern, name, _ = _item_row(charge)
    if name is not MACHINE:
        return name
    size = re.search(pattern, charge)
    assert size is not None  # noqa: S101 it was found by this pattern
    return MACHINE + MACHINE_SIZES.get(size[1] or size[2], "performance-16x")


def _app(base: str, charge: str) -> str | None:
    role = _item_row(charge)[2]
    return f"{base}-{role}" if role else None


def _item_row(charge: str) -> tuple[str, str, str | None]:
    return next(item for item in ITEMS if re.search(item[0], charge))


def _kebab(name: str) -> str:
    """Return ``bright-path-matrix`` for ``BrightPathMatrix``."""
    return _slug(re.sub(r"(?<=[a-z])(?=[A-Z0-9])", "-", name))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
