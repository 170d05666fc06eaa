"""The endpoint at Stripe: created or checked with the API version and the types that `EFFECTS` names.

``python -m webhooks https://billing.example/webhooks/stripe`` says what is missing, and exits with 1
when something is; ``--create`` makes it right. The version of an endpoint is fixed when it is created,
so an upgrade adds an endpoint beside the old one; events that come through both count once. It needs
Stripe's key and nothing else: the endpoint's secret is not known before, and no server of ours need run.
"""

import argparse
import asyncio
import sys
from contextlib import aclosing
from typing import Any
from uuid import uuid4

import structlog

from billing.budget import Lane, Unshared
from billing.events.effects import EFFECTS
from billing.settings import load_stripe_settings
from billing.stripe import API_VERSION, StripeApi

ENDPOINTS = "/v1/webhook_endpoints"
SECRETS = "BILLING_STRIPE_WEBHOOK_SECRETS"

Endpoint = dict[str, Any]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser("python -m webhooks", description="Check Stripe's endpoint.")
    parser.add_argument("url", help="where Stripe reaches POST /webhooks/stripe")
    parser.add_argument("--create", action="store_true", help="create it, or make it right")
    given = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    sys.exit(asyncio.run(_run(given.url, create=given.create)))


async def _run(url: str, *, create: bool) -> int:
    settings = load_stripe_settings()
    key, base = settings.stripe_api_key.get_secret_value(), settings.stripe_api_base
    async with aclosing(StripeApi(key, base, Unshared())) as stripe:
        secret = await put_right(stripe, url) if create else None
        missing = await find_missing(stripe, url)
    if secret:
        sys.stdout.write(
            f"Created. Add this secret to {SECRETS}, it is not shown again: {secret}\n"
        )
    for sentence in missing or [f"The endpoint {url} is as it should be."]:
        sys.stdout.write(f"{sentence}\n")
    return 1 if missing else 0


async def find_missing(stripe: StripeApi, url: str) -> list[str]:
    """What is wrong with the endpoint at *url*, a sentence each with its cure; empty when nothing is."""
    found = await _endpoints(stripe, url)
    ours = _of_our_version(found)
    if ours is None:
        wrong = [f"No endpoint at {url} speaks API version {API_VERSION}; run with --create."]
    else:
        wrong = _shortcomings(ours)
    return [*wrong, *(_outdated(each) for each in found if each["api_version"] != API_VERSION)]


async def put_right(stripe: StripeApi, url: str) -> str | None:
    """Create the endpoint, or correct it; the secret of a new one."""
    ours = _of_our_version(await _endpoints(stripe, url))
    wanted: Endpoint = {"enabled_events": sorted(EFFECTS)}
    if ours is None:
        made = await _write(stripe, ENDPOINTS, wanted | {"url": url, "api_version": API_VERSION})
        return str(made["secret"])
    if _shortcomings(ours):
        await _write(stripe, f"{ENDPOINTS}/{ours['id']}", wanted | {"disabled": "false"})
    return None


def _shortcomings(endpoint: Endpoint) -> list[str]:
    name, enabled = endpoint["id"], set(endpoint["enabled_events"])
    wrong = []
    if endpoint["status"] != "enabled":
        wrong.append(f"Endpoint {name} is disabled; run with --create to enable it.")
    if "*" not in enabled and (lacking := EFFECTS.keys() - enabled):
        wrong.append(f"Endpoint {name} does not send {', '.join(sorted(lacking))}.")
    if useless := enabled - EFFECTS.keys():
        wrong.append(f"Endpoint {name} sends what nobody uses: {', '.join(sorted(useless))}.")
    return wrong


def _outdated(endpoint: Endpoint) -> str:
    return (
        f"Endpoint {endpoint['id']} speaks API version {endpoint['api_version']}; delete it in the "
        f"Dashboard once another one delivers {API_VERSION}."
    )


async def _endpoints(stripe: StripeApi, url: str) -> list[Endpoint]:
    found = await stripe.pages(ENDPOINTS, lane=Lane.SUPPORT)
    return [each for each in found if each["url"] == url]


def _of_our_version(found: list[Endpoint]) -> Endpoint | None:
    return next((each for each in found if each["api_version"] == API_VERSION), None)


async def _write(stripe: StripeApi, path: str, params: Endpoint) -> Endpoint:
    # A new key each time: a repeated one would be answered with an endpoint that was deleted since.
    answer = await stripe.write(path, params, key=f"webhooks:{uuid4()}", lane=Lane.SUPPORT)
    return answer.body
