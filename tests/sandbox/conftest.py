"""One sandbox process for this folder, reset before each test."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import stripe
from stripe import StripeClient

from tests.support.receiver import Receiver, receive_webhooks
from tests.support.stripe_sandbox import StripeSandbox, start_sandbox

SECRET = "whsec_test_secret_of_the_receiver"


@pytest.fixture(scope="session")
def process() -> Iterator[StripeSandbox]:
    """A sandbox process without limits and delays."""
    with start_sandbox("--no-limits", "--no-latency", "--seed", "7") as sandbox:
        yield sandbox


@pytest.fixture
async def sandbox(process: StripeSandbox) -> StripeSandbox:
    """The process, reset."""
    await process.reset()
    await process.settings(duplicates=0, shuffle=0.02, search_lag=0)
    return process


@pytest.fixture
async def client(sandbox: StripeSandbox) -> AsyncIterator[StripeClient]:
    """The real stripe-python, with the sandbox as its base address."""
    http = stripe.HTTPXClient(timeout=30)
    yield StripeClient("sk_test_1", base_addresses={"api": sandbox.url}, http_client=http)
    await http.close_async()


@pytest.fixture
async def http(sandbox: StripeSandbox) -> AsyncIterator[httpx.AsyncClient]:
    """A plain HTTP client with a test key, for requests that the SDK would not send."""
    headers = {"authorization": "Bearer sk_test_1"}
    async with httpx.AsyncClient(
        base_url=sandbox.url, headers=headers, timeout=30, trust_env=False, verify=False
    ) as client:
        yield client


@pytest.fixture
async def receiver(sandbox: StripeSandbox) -> AsyncIterator[Receiver]:
    """A webhook endpoint that receives all events."""
    async with receive_webhooks() as receiver:
        await sandbox.register_endpoint(receiver.url, SECRET)
        yield receiver


@pytest.fixture
async def draft(client: StripeClient) -> Any:
    """An empty draft of a new customer."""
    customer = await client.v1.customers.create_async({"email": "a@example.com"})
    return await client.v1.invoices.create_async({"customer": customer.id})
