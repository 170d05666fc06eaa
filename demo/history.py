"""A past for some of the showcase's customers: billed months, cards, a correction, a hold.

The past months go through the gateway itself: their usage is recorded by a ledger whose clock stands in that
month, then the months are closed, and the worker bills them as it bills every month. So each has its lines,
its finalized invoice, and what it is made of. It needs the demo's own Valkey and sandbox, and runs once.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx

from billing.budget import Lane
from billing.invoicing.snapshot import PeriodState
from billing.ledger import Ledger
from billing.redis_clients import client_or_cluster
from billing.services import Services
from billing.usage import CustomerId, Period
from billing.usage_ingestion import record_usage
from billing.usage_validation import RawDelta
from demo import showcase
from demo.home import get_or_store, store
from demo.load import usage_line
from demo.tokens import token

POLL_SECONDS = 0.2
DECLINING, PAYING = "pm_card_chargeCustomerFail", "pm_card_visa"
# What an earlier month came to, as a share of the sample, the last month first.
SHARES = (Decimal("0.94"), Decimal("0.83"), Decimal("0.71"))


@dataclass(frozen=True)
class Story:
    """A customer, by rank of usage, whose *months* were billed, whose *card* pays, and how many *paid* by hand."""

    rank: int
    months: int
    card: str | None = None
    paid: int = 0


# Owes last month, paid the two before; pays by card; the card was declined.
STORIES = (Story(0, 3, paid=2), Story(1, 3, PAYING), Story(2, 1, DECLINING))
ON_HOLD, WITH_CREDIT, CREDIT = 3, 4, -5_000  # ranks; cents, negative in the customer's favour


async def write_history(
    services: Services, gateway: str, stripe: str, customers: Sequence[CustomerId]
) -> None:
    """Give *customers*, the most used first, their past, once; *stripe* is the sandbox's base address."""
    if get_or_store("history", default=False):
        return
    print("Billing earlier months; one payment is declined, one customer put on hold …", flush=True)
    await asyncio.gather(*(_tell(services, stripe, story, customers) for story in STORIES))
    await _write(services, f"/v1/customers/{customers[WITH_CREDIT]}", {"balance": CREDIT})
    await asyncio.gather(_correct(gateway, customers[0]), _hold(gateway, customers[ON_HOLD]))
    store("history", value=True)


async def _tell(
    services: Services, stripe: str, story: Story, customers: Sequence[CustomerId]
) -> None:
    customer = customers[story.rank]
    if story.card:
        await _attach_card(services, customer, story.card)
    months = [Period.containing(datetime.now(UTC)).previous()]
    while len(months) < story.months:
        months.append(months[-1].previous())
    invoices = []
    for month, share in reversed(list(zip(months, SHARES, strict=False))):
        await _record_month(services, customer, month, share)
        await services.ledger.periods.close(customer, month)
        invoices.append(await _billed(services, customer, month))
    for invoice in invoices[: story.paid]:
        await _write(services, f"/v1/invoices/{invoice}/pay", {"payment_method": PAYING})
    if story.card == DECLINING:  # Stripe says so by itself, the sandbox does not
        async with httpx.AsyncClient(base_url=stripe) as sandbox:
            fields = {"id": customer, "delinquent": True}
            body = {"kind": "customers", "fields": fields}
            (await sandbox.post("/_sandbox/objects", json=body)).raise_for_status()


async def _record_month(
    services: Services, customer: CustomerId, month: Period, share: Decimal
) -> None:
    """Record a *share* of the customer's sample as usage of *month*."""
    last_minute = month.end - timedelta(minutes=1)
    lines = [
        usage_line(
            replace(delta, quantity=(delta.quantity * share).quantize(showcase.QUANTITY_STEP)),
            {delta.account: customer},
        )
        for delta in showcase.deltas(month.start, last_minute)
        if showcase.customer_id(delta.account) == customer
    ]
    async with client_or_cluster(services.settings.redis_url) as redis:
        past = Ledger(redis, clock=lambda: round(last_minute.timestamp() * 1000))
        await past.open()
        deltas = [RawDelta(**_snake_case(line)) for line in lines]
        report = await record_usage(replace(services, ledger=past), deltas)
    if report.rejected:
        raise RuntimeError(report.rejected[0].error.message)


def _snake_case(line: dict[str, Any]) -> dict[str, Any]:
    renamed = {"customerId": "customer_id", "occurredAt": "occurred_at"}
    return {renamed.get(name, name): value for name, value in line.items()}


async def _billed(services: Services, customer: CustomerId, month: Period) -> str:
    """Wait until the worker has billed *month*; return its invoice."""
    while True:
        snapshot = await services.ledger.periods.snapshot(customer, month)
        if snapshot.state is PeriodState.SEALED and snapshot.invoice:
            return snapshot.invoice
        await asyncio.sleep(POLL_SECONDS)


async def _attach_card(services: Services, customer: CustomerId, card: str) -> None:
    attached = await _write(services, f"/v1/payment_methods/{card}/attach", {"customer": customer})
    default = {"invoice_settings": {"default_payment_method": attached["id"]}}
    await _write(services, f"/v1/customers/{customer}", default)


async def _write(services: Services, path: str, params: dict[str, Any]) -> dict[str, Any]:
    answer = await services.stripe.write(path, params, key=f"demo:{path}", lane=Lane.SUPPORT)
    return dict(answer.body)


async def _correct(gateway: str, customer: CustomerId) -> None:
    """Take usage off, as Support does after an outage."""
    await _mutate(
        gateway,
        "adjustUsage",
        "AdjustUsageInput",
        {
            "customerId": customer,
            "sku": "egress-iad",
            "quantity": "-150",
            "reason": "outage of 12 minutes in iad, ticket 4711",
            "idempotencyKey": "demo",
        },
    )


async def _hold(gateway: str, customer: CustomerId) -> None:
    reason = "asked to talk about the invoice first, ticket 4712"
    await _mutate(
        gateway, "holdBilling", "HoldBillingInput", {"customerId": customer, "reason": reason}
    )


async def _mutate(gateway: str, name: str, type_name: str, given: dict[str, str]) -> None:
    query = (
        f"mutation ($input: {type_name}!) {{ {name}(input: $input) {{ errors {{ message }} }} }}"
    )
    headers = {"Authorization": f"Bearer {token('support')}"}
    async with httpx.AsyncClient(base_url=gateway, headers=headers, timeout=30) as client:
        body = {"query": query, "variables": {"input": given}}
        answer = (await client.post("/graphql", json=body)).raise_for_status().json()
    if problems := answer.get("errors") or answer["data"][name]["errors"]:
        raise RuntimeError(f"{name}: {problems[0]['message']}")
