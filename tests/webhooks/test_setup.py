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
from tests.support.webhook_server import webhook_server
from webhooks.setup import check_answer, check_endpoint, create_or_update_endpoint

URL = "https://billing.example/webhooks/stripe"


async def test_missing_endpoint_is_reported(services: Services) -> None:
    """Without an endpoint the panel is only as fresh as the poll."""
    [sentence] = await check_endpoint(services.stripe, URL)

    assert sentence.startswith(f"No endpoint at {URL} speaks API version 2026-10-28.endive")


async def test_created_endpoint_has_no_problems(services: Services) -> None:
    """It has our version and types; its secret is returned once, and a second run adds nothing."""
    secret = await create_or_update_endpoint(services.stripe, URL)

    assert secret is not None
    assert secret.startswith("whsec_")
    assert await check_endpoint(services.stripe, URL) == []
    assert await create_or_update_endpoint(services.stripe, URL) is None
    [created] = await services.stripe.list_all("/v1/webhook_endpoints", lane=Lane.SUPPORT)
    assert set(created["enabled_events"]) == EFFECTS.keys()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"enabled_events": ["invoice.paid"]}, "does not send"),
        ({"enabled_events": ["*"]}, "sends unused event types: *"),
        ({"disabled": "true"}, "is disabled"),
    ],
)
async def test_changed_endpoint_is_reported_and_corrected(
    services: Services, change: dict[str, object], sentence: str
) -> None:
    """People edit endpoints in the Dashboard; the command names the difference."""
    await create_or_update_endpoint(services.stripe, URL)
    [created] = await services.stripe.list_all("/v1/webhook_endpoints", lane=Lane.SUPPORT)
    await services.stripe.write(
        f"/v1/webhook_endpoints/{created['id']}", change, key="edit", lane=Lane.SUPPORT
    )
    [problem] = await check_endpoint(services.stripe, URL)
    assert sentence in problem

    assert await create_or_update_endpoint(services.stripe, URL) is None
    assert await check_endpoint(services.stripe, URL) == []


async def test_endpoint_of_another_version_is_reported(services: Services) -> None:
    """Its version cannot be changed; it delivers until a person deletes it."""
    await services.stripe.write(
        "/v1/webhook_endpoints",
        {"url": URL, "enabled_events": ["*"], "api_version": "2022-11-15"},
        key="old",
        lane=Lane.SUPPORT,
    )
    assert len(await check_endpoint(services.stripe, URL)) == 2
    assert await create_or_update_endpoint(services.stripe, URL) is not None

    [sentence] = await check_endpoint(services.stripe, URL)
    assert "speaks API version 2022-11-15; delete it" in sentence


async def test_address_that_is_not_the_endpoint_is_reported(services: Services) -> None:
    """Every delivery to it would fail; an address that only Stripe reaches is no problem."""
    async with webhook_server(services) as url:
        [sentence] = await check_answer(f"{url}/elsewhere")
        problems = [await check_answer(right) for right in (url, "http://127.0.0.1:1/x", "x://")]

    assert "answers an unsigned delivery with 404 instead of 400" in sentence
    assert problems == [[], [], []]


async def test_command_prints_problems_and_the_new_secret(
    settings: Settings, services: Services, sandbox: StripeSandbox
) -> None:
    """It is run first, with only Stripe's key: no secret is known, and no server runs."""
    ours = environment(settings)
    stripes = ("BILLING_STRIPE_API_KEY", "BILLING_STRIPE_API_BASE")
    env = {name: ours[name] for name in ours if name[:8] != "BILLING_" or name in stripes}

    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "webhooks", URL, *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout

    status, output = run()
    assert (status, "No endpoint at" in output) == (1, True)
    status, output = run("--create")
    assert status == 0
    assert "whsec_" in output
    assert run() == (0, f"The endpoint {URL} is as it should be.\n")
    for wrong in (
        {"BILLING_STRIPE_API_BASE": "http://127.0.0.1:9"},
        {"BILLING_STRIPE_API_KEY": ""},
    ):
        env |= wrong
        assert run() == (1, "")
