"""Creates or checks the webhook endpoint at Stripe: its API version and the event types in `EFFECTS`.

``python -m webhooks https://billing.example/webhooks/stripe`` lists the problems and exits with 1 if
there are any; ``--create`` corrects them. The address is asked once, without a signature. The API version of an endpoint is fixed when it is created,
so an upgrade adds a second endpoint; an event delivered through both is processed once. The command
needs only Stripe's API key: no webhook secret, and no running server.
"""

import argparse
import asyncio
import sys
from contextlib import aclosing
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import httpx
import structlog

from billing.budget import Lane, UnlimitedBudget
from billing.errors import Refused, Unavailable
from billing.events.effects import EFFECTS
from billing.settings import load_stripe_settings
from billing.stripe import API_VERSION, StripeApi

ENDPOINTS = "/v1/webhook_endpoints"
SECRETS = "BILLING_STRIPE_WEBHOOK_SECRETS"

UNSIGNED_STATUS, ANSWER_SECONDS = HTTPStatus.BAD_REQUEST.value, 5.0

Endpoint = dict[str, Any]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser("python -m webhooks", description="Check Stripe's endpoint.")
    parser.add_argument("url", help="where Stripe reaches POST /webhooks/stripe")
    parser.add_argument("--create", action="store_true", help="create it, or correct it")
    args = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        status = asyncio.run(_run(args.url, create=args.create))
    except (Refused, Unavailable) as error:
        sys.exit(f"Nothing was checked: {error.message}")
    sys.exit(status)


async def _run(url: str, *, create: bool) -> int:
    settings = load_stripe_settings()
    key, base = settings.stripe_api_key.get_secret_value(), settings.stripe_api_base
    async with aclosing(StripeApi(key, base, UnlimitedBudget())) as stripe:
        secret = await create_or_update_endpoint(stripe, url) if create else None
        problems = await check_endpoint(stripe, url) + await check_answer(url)
    if secret:
        sys.stdout.write(
            f"Created. Add this secret to {SECRETS}, it is not shown again: {secret}\n"
        )
    for sentence in problems or [f"The endpoint {url} is as it should be."]:
        sys.stdout.write(f"{sentence}\n")
    return 1 if problems else 0


async def check_endpoint(stripe: StripeApi, url: str) -> list[str]:
    """The problems of the endpoint at *url*: one sentence each, with its cure."""
    endpoints = await _endpoints(stripe, url)
    current = _current_endpoint(endpoints)
    if current is None:
        problems = [f"No endpoint at {url} speaks API version {API_VERSION}; run with --create."]
    else:
        problems = _problems(current)
    outdated = [endpoint for endpoint in endpoints if endpoint["api_version"] != API_VERSION]
    return problems + [_outdated_problem(endpoint) for endpoint in outdated]


async def check_answer(url: str) -> list[str]:
    """The answer of *url*, if that is not our endpoint's refusal of an unsigned delivery.

    Nothing if nobody answers: the gateway may not run yet, and Stripe may reach what this machine does not.
    """
    try:
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS) as http:
            status = (await http.post(url)).status_code
    except (httpx.HTTPError, httpx.InvalidURL):
        return []
    if status == UNSIGNED_STATUS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return []
    problem = f"{url} answers an unsigned delivery with {status} instead of {UNSIGNED_STATUS}"
    return [f"{problem}: correct the address (Stripe follows no redirect)."]


async def create_or_update_endpoint(stripe: StripeApi, url: str) -> str | None:
    """Create the endpoint, or correct it; the secret of a created one."""
    current = _current_endpoint(await _endpoints(stripe, url))
    params: Endpoint = {"enabled_events": sorted(EFFECTS)}
    if current is None:
        created = await _write(stripe, ENDPOINTS, params | {"url": url, "api_version": API_VERSION})
        return str(created["secret"])
    if _problems(current):
        await _write(stripe, f"{ENDPOINTS}/{current['id']}", params | {"disabled": "false"})
    return None


def _problems(endpoint: Endpoint) -> list[str]:
    name, enabled = endpoint["id"], set(endpoint["enabled_events"])
    problems = []
    if endpoint["status"] != "enabled":
        problems.append(f"Endpoint {name} is disabled; run with --create to enable it.")
    if "*" not in enabled and (missing := EFFECTS.keys() - enabled):
        problems.append(f"Endpoint {name} does not send {', '.join(sorted(missing))}.")
    if unused := enabled - EFFECTS.keys():
        problems.append(f"Endpoint {name} sends unused event types: {', '.join(sorted(unused))}.")
    return problems


def _outdated_problem(endpoint: Endpoint) -> str:
    return (
        f"Endpoint {endpoint['id']} speaks API version {endpoint['api_version']}; delete it in the "
        f"Dashboard once another one delivers {API_VERSION}."
    )


async def _endpoints(stripe: StripeApi, url: str) -> list[Endpoint]:
    endpoints = await stripe.list_all(ENDPOINTS, lane=Lane.SUPPORT)
    return [endpoint for endpoint in endpoints if endpoint["url"] == url]


def _current_endpoint(endpoints: list[Endpoint]) -> Endpoint | None:
    return next(
        (endpoint for endpoint in endpoints if endpoint["api_version"] == API_VERSION), None
    )


async def _write(stripe: StripeApi, path: str, params: Endpoint) -> Endpoint:
    # A new key each time: Stripe would answer a repeated one with an endpoint that was since deleted.
    response = await stripe.write(path, params, key=f"webhooks:{uuid4()}", lane=Lane.SUPPORT)
    return response.body
