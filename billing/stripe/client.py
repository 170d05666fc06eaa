"""The only caller of Stripe: admitted by the budget, sent once, answered in raw JSON or a typed error.

Whether the same idempotency key may be sent again is said by the error: StripeBusy and OutcomeUnknown,
yes, and it must; StripeRejected and KeyExpired, never. A flush's writes are sent once and repeated from
the ledger, across crashes; what has no ledger behind it (reads, portal sessions) is repeated here, and
only when Stripe certainly did not execute it.
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

from billing.budget import Budget, CallOutcome, Lane, Unshared
from billing.budget.call import Call
from billing.errors import BillingError, KeyExpired, OutcomeUnknown, StripeBusy
from billing.invoicing.snapshot import Op
from billing.stripe.errors import REPLAYED, outcome, translated
from billing.stripe.transport import NOT_SENT, Wire

log = structlog.get_logger(__name__)

API_VERSION = "2026-10-28.endive"
TIMEOUT = httpx.Timeout(20, connect=3, pool=3)
PAUSES = (0.1, 0.4)  # seconds, give or take half, before a read is tried again
PAGE = 100  # Stripe's largest page


@dataclass(frozen=True, slots=True)
class Answer:
    """Stripe's 2xx: the parsed JSON *body*; *replayed* when an earlier request with this key did it."""

    body: dict[str, Any]
    replayed: bool
    request_id: str | None


@dataclass(slots=True)
class Tally:
    """How many requests were sent to Stripe while it was open."""

    calls: int = 0


_tallies: ContextVar[tuple[Tally, ...]] = ContextVar("stripe_tallies", default=())
_not_after: ContextVar[float | None] = ContextVar("stripe_not_after", default=None)


@contextmanager
def tally() -> Iterator[Tally]:
    """Count the calls made inside, also by tasks started inside; an outer tally counts them too."""
    opened = Tally()
    token = _tallies.set((*_tallies.get(), opened))
    try:
        yield opened
    finally:
        _tallies.reset(token)


def boottime() -> float:
    """Seconds since boot, suspended time included: a frozen machine must not resend an old key."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class StripeApi:
    """Stripe's API, version ``API_VERSION``, at *base*."""

    def __init__(
        self,
        api_key: str,
        base: str,
        budget: Budget | Unshared,
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
        self._wire = Wire(timeout, self._before_first_byte)
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": base},
            http_client=self._wire,
            max_network_retries=0,
        )

    async def send(self, op: Op, *, lane: Lane, not_after: float | None = None) -> Answer:
        """Make the write of *op* under its key.

        *not_after* is in ``boottime`` seconds and is looked at when the first byte leaves, however
        long admission and connecting took: KeyExpired, nothing was sent.
        """
        token = _not_after.set(not_after)
        try:
            return await self._call(op.method, op.path, op.params, lane=lane, key=op.key)
        finally:
            _not_after.reset(token)

    async def write(self, path: str, params: Mapping[str, Any], *, key: str, lane: Lane) -> Answer:
        """POST *params* under the idempotency *key*."""
        return await self._patiently("POST", path, params, lane=lane, key=key)

    async def read(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        lane: Lane,
    ) -> dict[str, Any]:
        """GET one object or one page; what does not exist is a StripeRejected with status 404."""
        return (await self._patiently("GET", path, params or {}, lane=lane)).body

    async def pages(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        lane: Lane,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Everything that a list holds, in Stripe's order (newest first), or its first *limit*."""
        found: list[dict[str, Any]] = []
        query = {**(params or {}), "limit": min(PAGE, limit or PAGE)}
        while True:
            page = await self.read(path, query, lane=lane)
            found += page["data"]
            if not page["has_more"] or (limit is not None and len(found) >= limit):
                return found[:limit]
            query["starting_after"] = found[-1]["id"]

    async def aclose(self) -> None:
        """Close the connections to Stripe."""
        await self._wire.close_async()

    async def _patiently(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any],
        *,
        lane: Lane,
        key: str | None = None,
    ) -> Answer:
        for pause in PAUSES:
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
    ) -> Answer:
        call = Call.of(method, path, params)
        async with self._budget.admission(call, lane) as passage:
            options = {"idempotency_key": key} if method.upper() == "POST" else {}
            try:
                response = await self._client.raw_request_async(
                    method.lower(),
                    path,
                    **params,
                    **options,
                )
            except stripe.StripeError as error:
                failure = translated(error)
                passage.outcome = outcome(failure, sent=error.code != NOT_SENT)
                _log_failure(call, failure, error)
                raise failure from error
            passage.outcome = CallOutcome.OK
            return _answer(response)

    def _before_first_byte(self) -> None:
        deadline = _not_after.get()
        if deadline is not None and self._now() > deadline:
            raise KeyExpired
        for each in _tallies.get():
            each.calls += 1


def _answer(response: stripe.StripeResponse) -> Answer:
    if not isinstance(response.data, dict):
        raise OutcomeUnknown("Stripe's answer was no JSON object.")
    headers = response.headers
    return Answer(response.data, headers.get(REPLAYED) == "true", headers.get("request-id"))


def _log_failure(call: Call, failure: BillingError, error: stripe.StripeError) -> None:
    log.warning(
        "stripe.failed",
        endpoint=call.endpoint,
        object=call.object,
        outcome=type(failure).__name__,
        status=error.http_status,
        request_id=error.request_id,
    )
