"""A Stripe account, read only: this client can send GET and nothing else.

It does not use the gateway's own client, which can write and waits for the shared budget in Redis.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, Self

import httpx

from billing.stripe import API_VERSION

MAX_READS = 99
PAGE_SIZE = 100
MAX_PAGES = 5
BUSY_PAUSES = (0.5, 2.0)  # seconds before a read is repeated that a limit refused
TIMEOUT = httpx.Timeout(20, connect=5)
OK, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, LIMITED = 200, 401, 403, 404, 429

Params = Mapping[str, Any]
StripeObject = dict[str, Any]


class Page(NamedTuple):
    """The newest objects of a list; *complete* unless the list has more."""

    items: list[StripeObject]
    complete: bool


class CannotRead(Exception):
    """One path cannot be read; the message says why, in our words."""


class KeyLacksRight(CannotRead):
    """The restricted key may not read the path."""


class AccountUnreachable(Exception):
    """Nothing can be read: the key is refused, or Stripe does not answer."""


class StripeAccount:
    """The account of *key* at *base*; what was read once is not read again.

    *webhook_url* is where Stripe should reach this gateway; None if it is not known.
    """

    def __init__(self, key: str, base: str, webhook_url: str | None = None) -> None:
        self.key = key
        self.webhook_url = webhook_url
        self.reads = 0
        self.limited: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.versions: set[str] = set()
        self.clock_differences: list[float] = []
        self._bodies: dict[tuple[str, str], StripeObject | CannotRead] = {}
        headers = {"authorization": f"Bearer {key}", "stripe-version": API_VERSION}
        self._http = httpx.AsyncClient(base_url=base, headers=headers, timeout=TIMEOUT)

    async def __aenter__(self) -> Self:
        """Open the connections."""
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._http.aclose()

    @property
    def is_live(self) -> bool:
        """True for a live key."""
        return "_live_" in self.key

    async def get(self, path: str, params: Params | None = None) -> StripeObject:
        """The object or list at *path*; CannotRead if there is none to be had."""
        query = str(httpx.QueryParams(params or {}))
        if (path, query) not in self._bodies:
            try:
                self._bodies[path, query] = await self._read(path, query)
            except CannotRead as failure:
                self._bodies[path, query] = failure
        body = self._bodies[path, query]
        if isinstance(body, CannotRead):
            raise body
        return body

    async def page(self, path: str, params: Params | None = None) -> Page:
        """The newest hundred objects of a list."""
        body = await self.get(path, {**(params or {}), "limit": PAGE_SIZE})
        return Page(body["data"], not body["has_more"])

    async def pages(self, path: str, params: Params | None = None) -> Page:
        """The newest objects of a list, ``MAX_PAGES`` hundreds at most."""
        items: list[StripeObject] = []
        query = dict(params or {})
        for _ in range(MAX_PAGES):
            page = await self.page(path, query)
            items += page.items
            if page.complete:
                return Page(items, complete=True)
            query["starting_after"] = items[-1]["id"]
        return Page(items, complete=False)

    async def _read(self, path: str, query: str) -> StripeObject:
        for pause in (*BUSY_PAUSES, 0):
            response = await self._send(path, query)
            if response.status_code != LIMITED:
                break
            reason = response.headers.get("stripe-rate-limited-reason", "unnamed")
            self.limited[reason] += 1
            await asyncio.sleep(pause)
        return _body(path, response)

    async def _send(self, path: str, query: str) -> httpx.Response:
        if self.reads >= MAX_READS:
            raise CannotRead(f"{MAX_READS} reads were made, and a check makes no more")
        self.reads += 1
        started = time.monotonic()
        try:
            response = await self._http.get(path, params=query)
        except httpx.HTTPError as error:
            raise AccountUnreachable(
                f"{self._http.base_url.host} does not answer ({type(error).__name__})"
            ) from error
        if response.status_code == UNAUTHORIZED:
            raise AccountUnreachable("Stripe does not know the API key, or it was revoked")
        self.seconds.append(time.monotonic() - started)
        self.versions.add(response.headers.get("stripe-version", "none"))
        if date := response.headers.get("date"):
            theirs = parsedate_to_datetime(date)
            # The header has whole seconds and is half of the request old.
            self.clock_differences.append((datetime.now(UTC) - theirs).total_seconds() - 0.5)
        return response


def _body(path: str, response: httpx.Response) -> StripeObject:
    status = response.status_code
    if status == FORBIDDEN:
        raise KeyLacksRight(f"the key has no right to read {path}")
    if status == LIMITED:
        raise CannotRead(f"Stripe's limits refused {path} three times")
    if status == NOT_FOUND:
        raise CannotRead(f"Stripe has no {path}")
    try:
        body = response.json()
    except ValueError:
        body = None
    if status != OK or not isinstance(body, dict):
        raise CannotRead(f"{path} was answered with {status}")
    return body
