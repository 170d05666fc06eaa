"""A Stripe account of test mode in which cases make objects, and which is cleaned up afterwards."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

import httpx

from sandbox.sdk import API_VERSION, Json

WAIT_SECONDS = 60
POLL_SECONDS = 0.5
BUSY = 429
RETRIES = 5


class WrongAccount(Exception):
    """The key is not one of test mode."""


class CallFailed(Exception):
    """A call that a case relies on was refused; the message quotes Stripe's."""


class Answer:
    """One answer: *status*, *body* and *headers*."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.body: Json = response.json()

    @property
    def error(self) -> Json:
        """The error, empty if there is none."""
        found: Json = self.body.get("error", {})
        return found


class TestAccount:
    """Calls the API with *key*; *http* has the base address."""

    __test__ = False  # no test class, whatever its name

    def __init__(self, http: httpx.AsyncClient, key: str) -> None:
        if not key.startswith(("sk_test_", "rk_test_")):
            raise WrongAccount(
                "Give a key of test mode (sk_test_…, rk_test_…); live keys are refused."
            )
        self._http = http
        self._headers = {"authorization": f"Bearer {key}", "stripe-version": API_VERSION}
        self._made: list[tuple[str, str]] = []
        self.request_ids: list[str] = []
        self.seconds: dict[str, list[float]] = {"GET": [], "LIST": [], "POST": []}

    async def call(
        self, method: str, path: str, params: Any = None, key: str | None = None
    ) -> Answer:
        """Send one request; a limiter's refusal is repeated."""
        form = flatten(params or {})
        headers = dict(self._headers)
        if method == "POST":
            headers["idempotency-key"] = key or str(uuid4())
        for pause in range(1, RETRIES + 1):
            started = time.monotonic()
            if method == "POST":
                response = await self._http.post(f"/v1/{path}", data=form, headers=headers)
            else:
                response = await self._http.request(
                    method, f"/v1/{path}", params=form, headers=headers
                )
            if response.status_code != BUSY:
                break
            await asyncio.sleep(pause)
        answer = Answer(response)
        self.request_ids.append(answer.headers.get("request-id", "none"))
        kind = "LIST" if answer.body.get("object") == "list" else method
        self.seconds.setdefault(kind, []).append(time.monotonic() - started)
        return answer

    async def burst(self, path: str) -> Answer:
        """GET *path* once, also if a limiter refuses it."""
        return Answer(await self._http.get(f"/v1/{path}", headers=self._headers))

    async def get(self, path: str, params: Any = None) -> Json:
        """The object or list at *path*."""
        return _body(await self.call("GET", path, params))

    async def post(self, path: str, params: Any = None) -> Json:
        """Create or change an object; what was created is cleaned up at the end."""
        body = _body(await self.call("POST", path, params))
        if "id" in body and "/" not in path:
            self.remember(path, body["id"])
        return body

    def remember(self, kind: str, object_id: str) -> None:
        """Clean an object up that another call made."""
        self._made.append((kind, object_id))

    async def delete(self, path: str) -> Json:
        """Delete an object."""
        return _body(await self.call("DELETE", path))

    async def customer(self, **params: Any) -> Json:
        """A customer with *params*."""
        return await self.post("customers", params)

    async def price(self, **params: Any) -> Json:
        """A price of a product of its own: one cent in dollars unless *params* say otherwise."""
        amount = (
            {}
            if params.keys() & {"unit_amount_decimal", "custom_unit_amount"}
            else {"unit_amount": 1}
        )
        product = await self.post("products", {"name": "Conformance"})
        base = {"currency": "usd", "product": product["id"]}
        return await self.post("prices", base | amount | params)

    async def draft(self, *lines: Mapping[str, Any], customer: str = "", **params: Any) -> Json:
        """A draft with *lines*, of a new customer unless one is named."""
        owner = customer or (await self.customer())["id"]
        made = await self.post("invoices", {"customer": owner, "currency": "usd"} | params)
        if not lines:
            return made
        return await self.post(f"invoices/{made['id']}/add_lines", {"lines": list(lines)})

    async def card(self, name: str, customer: str) -> str:
        """Attach a test card of Stripe's as the default payment method of *customer*."""
        card = await self.post(f"payment_methods/{name}/attach", {"customer": customer})
        settings = {"invoice_settings": {"default_payment_method": card["id"]}}
        await self.post(f"customers/{customer}", settings)
        return str(card["id"])

    async def events(self, object_id: str) -> list[str]:
        """Types of the newest events about an object, newest first, when they have come to rest."""
        found: list[str] = []

        async def has_settled() -> bool:
            nonlocal found
            page = await self.get("events", {"limit": 100})
            seen = [e["type"] for e in page["data"] if e["data"]["object"].get("id") == object_id]
            if seen and seen == found:
                return True
            found = seen
            return False

        with suppress(TimeoutError):
            await self.wait(has_settled, 10)
        return found

    async def wait(
        self, condition: Callable[[], Awaitable[bool]], seconds: float = WAIT_SECONDS
    ) -> None:
        """Wait until *condition* holds; TimeoutError after *seconds*."""
        async with asyncio.timeout(seconds):
            while not await condition():  # noqa: ASYNC110 another program's state
                await asyncio.sleep(POLL_SECONDS)

    async def clean_up(self) -> list[str]:
        """Delete or archive everything that was made, newest first; what could not be is returned."""
        left = []
        for kind, name in reversed(self._made):
            answer = await self._remove(kind, name)
            if answer is not None and answer.status not in (200, 404):
                left.append(f"{kind}/{name}")
        self._made.clear()
        return left

    async def _remove(self, kind: str, name: str) -> Answer | None:
        if kind in ("customers", "coupons", "invoiceitems", "test_helpers"):
            answer = await self.call("DELETE", f"{kind}/{name}")
            return None if kind == "invoiceitems" else answer  # those of a bill stay with it
        if kind in ("products", "prices", "tax_rates"):
            return await self.call("POST", f"{kind}/{name}", {"active": False})
        if kind == "invoices":
            deleted = await self.call("DELETE", f"invoices/{name}")
            if deleted.status != 200:  # noqa: PLR2004 finalized: an open one is voided
                await self.call("POST", f"invoices/{name}/void")
        return None


def flatten(value: Any, at: str = "") -> dict[str, str]:
    """Stripe's form encoding of nested parameters: ``lines[0][amount]=5``."""
    if isinstance(value, Mapping):
        parts = [(f"{at}[{name}]" if at else str(name), item) for name, item in value.items()]
    elif isinstance(value, list):
        parts = [(f"{at}[{number}]", item) for number, item in enumerate(value)]
    else:
        return {at: str(value).lower() if isinstance(value, bool) else str(value)}
    return {name: text for part, item in parts for name, text in flatten(item, part).items()}


def _body(answer: Answer) -> Json:
    if answer.error:
        raise CallFailed(
            f"{answer.status} {answer.error.get('code')}: {answer.error.get('message')}"
        )
    return answer.body
