"""A sandbox of this folder's own, and an account in which the doctor finds nothing."""

from collections.abc import AsyncIterator, Iterator
from decimal import Decimal

import pytest
import stripe
from stripe import StripeClient

from billing.events.effects import EFFECTS
from tests.support.stripe_sandbox import StripeSandbox, start_sandbox

URL = "https://billing.example/webhooks/stripe"
RESTRICTED = "rk_test_0123456789abcdef"


@pytest.fixture(scope="session")
def doctor_sandbox() -> Iterator[StripeSandbox]:
    """A sandbox process without limits and delays."""
    with start_sandbox("--no-limits", "--no-latency", "--seed", "11") as sandbox:
        yield sandbox


@pytest.fixture
async def sandbox(doctor_sandbox: StripeSandbox) -> StripeSandbox:
    """The process, reset."""
    await doctor_sandbox.reset()
    return doctor_sandbox


@pytest.fixture
async def client(sandbox: StripeSandbox) -> AsyncIterator[StripeClient]:
    """The real stripe-python, with the sandbox as its base address."""
    http = stripe.HTTPXClient(timeout=30)
    yield StripeClient("sk_test_1", base_addresses={"api": sandbox.url}, http_client=http)
    await http.close_async()  # type: ignore[no-untyped-call]


@pytest.fixture
async def customer(sandbox: StripeSandbox, client: StripeClient) -> str:
    """The customer of an account that is as it should be: an endpoint, a price, a customer with a card."""
    v1 = client.v1
    product = await v1.products.create_async({"name": "Machine"})
    await v1.prices.create_async(
        {
            "product": product.id,
            "currency": "usd",
            "unit_amount_decimal": Decimal("0.5"),
            "lookup_key": "machine-seconds",
        }
    )
    created = await v1.customers.create_async(
        {"email": "secret.person@example.com", "payment_method": "pm_card_visa"}
    )
    [card] = (await v1.customers.payment_methods.list_async(created.id)).data
    await v1.customers.update_async(
        created.id, {"invoice_settings": {"default_payment_method": card.id}}
    )
    await sandbox.put_object("customers", id=created.id, currency="usd")
    await sandbox.restrict_key(
        RESTRICTED,
        **dict.fromkeys(
            (
                "account",
                "billing_portal",
                "credit_notes",
                "customers",
                "events",
                "invoiceitems",
                "invoices",
                "payment_intents",
                "prices",
                "products",
                "subscriptions",
                "tax",
                "webhook_endpoints",
            ),
            "read",
        ),
    )
    # Registered last: what was created before has no delivery that waits.
    await sandbox.register_endpoint(URL, "whsec_doctor", sorted(EFFECTS))
    return created.id
