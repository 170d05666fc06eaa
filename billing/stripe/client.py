"""The only client of Stripe: each call waits for the budget, is sent once, returns JSON or a typed error.

The error says whether the same idempotency key may be sent again: it must after StripeBusy and
OutcomeUnknown, and must not after StripeRejected and KeyExpired. A flush's writes are sent once; the ledger
repeats them, also after a crash. Calls without the ledger (reads, portal sessions) are retried here, and
only if Stripe certainly did not execute them.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpx
import stripe
import structlog

from billing.budget import Budget, CallOutcome, Lane, UnlimitedBudget
from billing.budget.call import StripeCall
from billing.errors import BillingError, KeyExpired, OutcomeUnknown, StripeBusy
from billing.invoicing.request_batch import StripeRequest
from billing.stripe.errors import REPLAYED_HEADER, budget_outcome, translate
from billing.stripe.transport import NOT_SENT, HttpxTransport

log = structlog.get_logger(__name__)

API_VERSION = "2026-10-28.endive"
TIMEOUT = httpx.Timeout(20, connect=3, pool=3)
RETRY_PAUSES = (0.1, 0.4)  # seconds before a retry, plus or minus half
PAGE_SIZE = 100  # Stripe's maximum


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """A 2xx response: the parsed JSON *body*; *replayed* if an earlier request with this key was executed."""

    body: dict[str, Any]
    replayed: bool
    request_id: str | None


@dataclass(slots=True)
class CallCount:
    """The number of requests sent to Stripe inside ``count_calls``."""

    calls: int = 0


_call_counts: ContextVar[tuple[CallCount, ...]] = ContextVar("stripe_tallies", default=())
_not_after: ContextVar[float | None] = ContextVar("stripe_not_after", default=None)


@contextmanager
def count_calls() -> Iterator[CallCount]:
    """Count the calls made inside, also by tasks started inside; enclosing counts include them."""
    count = CallCount()
    token = _call_counts.set((*_call_counts.get(), count))
    try:
        yield count
    finally:
        _call_counts.reset(token)


def boottime() -> float:
    """Seconds since boot, including suspended time: a machine that was frozen must not resend an old key."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class StripeApi:
    """Stripe's API, version ``API_VERSION``, at *base*."""

    def __init__(
        self,
        api_key: str,
        base: str,
        budget: Budget | UnlimitedBudget,
        *,
        timeout: httpx.Timeout = TIMEOUT,
        now: Callable[[], float] = boottime,
    ) -> None:
        if stripe.api_version != API_VERSION:
            raise RuntimeError(
                f"stripe-python speaks {stripe.api_version}, this gateway {API_VERSION}; pin stripe",
            )
        stripe.enable_telemetry = False  # it would keep an id of this machine on disk
        logging.getLogger("stripe").setLevel(logging.WARNING)  # at DEBUG it logs payloads
        self._budget = budget
        self._now = now
        self._transport = HttpxTransport(timeout, self._before_first_byte)
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": base},
            http_client=self._transport,
            max_network_retries=0,
        )

    async def send(
        self, request: StripeRequest, *, lane: Lane, not_after: float | None = None
    ) -> ApiResponse:
        """Send the write *request* under its idempotency key.

        *not_after*, in ``boottime`` seconds, is checked just before the first byte is sent, after
        admission and connecting. If it has passed, KeyExpired is raised and nothing is sent.
        """
        token = _not_after.set(not_after)
        try:
            return await self._call(
                request.method, request.path, request.params, lane=lane, key=request.idempotency_key
            )
        finally:
            _not_after.reset(token)

    async def write(
        self, path: str, params: Mapping[str, Any], *, key: str, lane: Lane
    ) -> ApiResponse:
        """POST *params* under the idempotency *key*."""
        return await self._with_retries("POST", path, params, lane=lane, key=key)

    async def read(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        lane: Lane,
    ) -> dict[str, Any]:
        """GET one object or one page; StripeRejected with status 404 if it does not exist."""
        return (await self._with_retries("GET", path, params or {}, lane=lane)).body

    async def list_all(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        lane: Lane,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """All objects of a list in Stripe's order (newest first), or the first *limit* of them."""
        found: list[dict[str, Any]] = []
        query = {**(params or {}), "limit": min(PAGE_SIZE, limit or PAGE_SIZE)}
        while True:
            page = await self.read(path, query, lane=lane)
            found += page["data"]
            if not page["has_more"] or (limit is not None and len(found) >= limit):
                return found[:limit]
            query["starting_after"] = found[-1]["id"]

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.close_async()

    async def _with_retries(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any],
        *,
        lane: Lane,
        key: str | None = None,
    ) -> ApiResponse:
        for pause in RETRY_PAUSES:
            try:
                return await self._call(method, path, params, lane=lane, key=key)
            except StripeBusy:
                await asyncio.sleep(pause * (0.5 + random.random()))  # noqa: S311 spreads retries
        return await self._call(method, path, params, lane=lane, key=key)

    async def _call(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any],
        *,
        lane: Lane,
        key: str | None = None,
    ) -> ApiResponse:
        call = StripeCall.from_request(method, path, params)
        async with self._budget.admission(call, lane) as permit:
            options = {"idempotency_key": key} if method.upper() == "POST" else {}
            try:
                response = await self._client.raw_request_async(
                    method.lower(),
                    path,
                    **params,
                    **options,
                )
            except stripe.StripeError as error:
                failure = translate(error, method.upper())
                permit.outcome = budget_outcome(failure, sent=error.code != NOT_SENT)
                _log_failure(call, failure, error)
                raise failure from error
            permit.outcome = CallOutcome.OK
            return _parse_response(response)

    def _before_first_byte(self) -> None:
        deadline = _not_after.get()
        if deadline is not None and self._now() > deadline:
            raise KeyExpired
        for count in _call_counts.get():
            count.calls += 1


def _parse_response(response: stripe.StripeResponse) -> ApiResponse:
    if not isinstance(response.data, dict):
        raise OutcomeUnknown("Stripe's response was not a JSON object.")
    headers = response.headers
    return ApiResponse(
        response.data, headers.get(REPLAYED_HEADER) == "true", headers.get("request-id")
    )


def _log_failure(call: StripeCall, failure: BillingError, error: stripe.StripeError) -> None:
    log.warning(
        "stripe.failed",
        endpoint=call.endpoint,
        object=call.locked_object,
        outcome=type(failure).__name__,
        status=error.http_status,
        request_id=error.request_id,
    )
