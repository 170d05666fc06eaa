"""Registration of customers in the ledger: those with new usage are looked up at Stripe, once."""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from billing.budget import Lane
from billing.errors import ErrorCode, Overloaded, Refused, Unavailable
from billing.ledger.usage import CurrencySource
from billing.services import Services
from billing.stripe import resources
from billing.stripe.records import CustomerRecord
from billing.usage import CustomerId, Price

# A batch waits at most so many seconds in all; what is not confirmed by then is refused, the rest is counted.
MAX_CONCURRENT_LOOKUPS, LOOKUP_SECONDS = 8, 10.0
# A customer that did not exist so long ago may exist now: Stripe is asked again before one is refused for good.
MAX_ABSENCE_AGE = timedelta(seconds=3)


async def register_customers(
    services: Services, first_prices: Mapping[CustomerId, Price], requested_at: datetime
) -> dict[CustomerId, Unavailable | Refused]:
    """Register those of the customers that are new to the ledger and exist at Stripe; return the others' reasons.

    *first_prices* are the prices of their first usage, whose currency they get if they have none at Stripe.
    """
    known = await services.ledger.usage.registered_currencies(first_prices)
    new = first_prices.keys() - known.keys()
    records, refusals = await _look_up(services, new, requested_at)
    await asyncio.gather(
        *(_register(services, record, first_prices[record.id].currency) for record in records)
    )
    return refusals


async def update_currencies(
    services: Services, customers: Iterable[CustomerId], requested_at: datetime
) -> set[CustomerId]:
    """Register the currencies that the customers have at Stripe; return the customers that could be read."""
    records, _ = await _look_up(services, customers, requested_at)
    await asyncio.gather(
        *(_register(services, record, record.currency) for record in records if record.currency)
    )
    return {record.id for record in records}


def unknown(customer: CustomerId, retry_after: int | None = None) -> Refused:
    """The refusal of a customer that Stripe does not know, or did not know a moment ago."""
    message = f"Stripe knows no customer {customer}; check the id."
    return Refused(ErrorCode.NOT_FOUND, message, retry_after=retry_after)


def deleted(customer: CustomerId) -> Refused:
    """The refusal of a customer that was deleted in Stripe, which is for ever."""
    message = f"Customer {customer} was deleted in Stripe; stop sending usage for it."
    return Refused(ErrorCode.NOT_FOUND, message)


async def _look_up(
    services: Services, customers: Iterable[CustomerId], requested_at: datetime
) -> tuple[list[CustomerRecord], dict[CustomerId, Unavailable | Refused]]:
    """Read *customers* at Stripe; returns them, and the reasons for those that cannot be read or billed."""
    loop, slots = asyncio.get_running_loop(), asyncio.Semaphore(MAX_CONCURRENT_LOOKUPS)
    waited = (datetime.now(UTC) - requested_at).total_seconds()
    deadline = loop.time() + max(LOOKUP_SECONDS - waited, 0)
    records: list[CustomerRecord] = []
    refusals: dict[CustomerId, Unavailable | Refused] = {}

    async def look_up(customer: CustomerId) -> None:
        async with slots:
            try:
                if loop.time() > deadline:
                    raise Overloaded("Too many customers are new at once.")
                async with asyncio.timeout_at(deadline):
                    records.append(await _require(services, customer, requested_at))
            except TimeoutError:
                refusals[customer] = Unavailable("It did not answer in time.")
            except (Unavailable, Refused) as error:
                refusals[customer] = error

    await asyncio.gather(*map(look_up, customers))
    return records, refusals


async def _require(
    services: Services, customer: CustomerId, requested_at: datetime
) -> CustomerRecord:
    """The customer; Refused, for good only if it was deleted or was unknown after *requested_at*."""
    reader, resource = services.stripe_reader, resources.customer(customer)
    found = await reader.get(resource, Lane.CUSTOMER)
    if found.value is None and found.fetched_at < requested_at - MAX_ABSENCE_AGE:
        found = await reader.reload(resource, customer, Lane.CUSTOMER)
    if found.value is None:
        current = found.fetched_at >= requested_at
        raise unknown(customer, None if current else MAX_ABSENCE_AGE.seconds)
    if found.value.deleted:
        raise deleted(customer)
    return found.value


async def _register(services: Services, customer: CustomerRecord, currency: str) -> None:
    """Register *customer* in its own currency at Stripe, or else in *currency*, that of a price."""
    source = CurrencySource.STRIPE if customer.currency else CurrencySource.PRICE
    await services.ledger.usage.register_customer(
        customer.id, customer.currency or currency, source
    )
