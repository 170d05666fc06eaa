"""``python -m webhooks``: the endpoint at Stripe, created, checked and corrected."""

import subprocess
import sys

import pytest

from billing.budget import Lane
from billing.events.effects import EFFECTS
from billing.services import Services
from billing.settings import Settings
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.system import environment
from webhooks.setup import find_missing, put_right

URL = "https://billing.example/webhooks/stripe"


async def test_a_missing_endpoint_is_said_to_be_missing(services: Services) -> None:
    """Without an endpoint the panel is only as fresh as the sweep."""
    [sentence] = await find_missing(services.stripe, URL)

    assert sentence.startswith(f"No endpoint at {URL} speaks API version 2026-10-28.endive")


async def test_a_created_endpoint_is_as_it_should_be(services: Services) -> None:
    """The secret is given once, the version and the types are ours, and a second run adds nothing."""
    secret = await put_right(services.stripe, URL)

    assert secret is not None
    assert secret.startswith("whsec_")
    assert await find_missing(services.stripe, URL) == []
    assert await put_right(services.stripe, URL) is None
    [made] = await services.stripe.pages("/v1/webhook_endpoints", lane=Lane.SUPPORT)
    assert set(made["enabled_events"]) == EFFECTS.keys()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"enabled_events": ["invoice.paid"]}, "does not send"),
        ({"enabled_events": ["*"]}, "sends what nobody uses: *"),
        ({"disabled": "true"}, "is disabled"),
    ],
)
async def test_an_endpoint_that_was_changed_is_named_and_corrected(
    services: Services, change: dict[str, object], sentence: str
) -> None:
    """People edit endpoints in the Dashboard; the command says what they took away."""
    await put_right(services.stripe, URL)
    [made] = await services.stripe.pages("/v1/webhook_endpoints", lane=Lane.SUPPORT)
    await services.stripe.write(
        f"/v1/webhook_endpoints/{made['id']}", change, key="edit", lane=Lane.SUPPORT
    )
    [found] = await find_missing(services.stripe, URL)
    assert sentence in found

    assert await put_right(services.stripe, URL) is None
    assert await find_missing(services.stripe, URL) == []


async def test_an_endpoint_of_another_version_is_replaced_by_a_person(services: Services) -> None:
    """Its version cannot be changed; it goes on delivering until the new one does."""
    await services.stripe.write(
        "/v1/webhook_endpoints",
        {"url": URL, "enabled_events": ["*"], "api_version": "2022-11-15"},
        key="old",
        lane=Lane.SUPPORT,
    )
    assert len(await find_missing(services.stripe, URL)) == 2
    assert await put_right(services.stripe, URL) is not None

    [sentence] = await find_missing(services.stripe, URL)
    assert "speaks API version 2022-11-15; delete it" in sentence


async def test_the_command_prints_what_is_missing_and_the_new_secret(
    settings: Settings, services: Services, sandbox: StripeSandbox
) -> None:
    """It is run first of all, with Stripe's key: nobody knows a secret yet, and no server runs."""
    ours = environment(settings)
    stripes = ("BILLING_STRIPE_API_KEY", "BILLING_STRIPE_API_BASE")
    env = {name: ours[name] for name in ours if name[:8] != "BILLING_" or name in stripes}

    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "webhooks", URL, *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    status, said = run()
    assert (status, "No endpoint at" in said) == (1, True)
    status, said = run("--create")
    assert status == 0
    assert "whsec_" in said
    assert run() == (0, f"The endpoint {URL} is as it should be.\n")
    del env["BILLING_STRIPE_API_KEY"]
    assert run() == (1, "")
