"""A request's way through: who, how often, which accident, once only, one at a time, done, kept."""

import asyncio
import base64
import traceback
import zlib
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson
from starlette.types import Receive, Scope, Send

from sandbox.account import HOUR, Account, Unit
from sandbox.actions import Operation, Routes
from sandbox.errors import StripeError, broken, limited, refuse, unsimulated
from sandbox.forms import Params, check, decode
from sandbox.hostility import ON_REQUEST, Fault, Faults, Limiter
from sandbox.resources import expand
from sandbox.sdk import API_VERSION, Json

DAY: Final = 24 * HOUR
MAX_KEY: Final = 255


class Lost(Exception):
    """The caller gets no answer: its connection is cut."""


class Answer(NamedTuple):
    """Status, body and headers of one answer."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class Call(NamedTuple):
    """One request, matched to its operation; ``asked`` is a digest of what it asks."""

    operation: Operation
    ids: list[str]
    sent: Params
    unit: Unit
    fault: Fault | None
    asked: str

    def meets(self, *kinds: str) -> bool:
        """Tell whether one of these accidents strikes it."""
        return self.fault is not None and self.fault.kind in kinds


class Api:
    """The ASGI application under ``/v1``."""

    def __init__(self, account: Account, routes: Routes, limiter: Limiter, faults: Faults) -> None:
        self.account, self.routes, self.limiter, self.faults = account, routes, limiter, faults
        self._running: set[str] = set()
        self._late: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or cut its connection."""
        message = await receive()
        body = message.get("body", b"")
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        request = self.account.new_id("req_")
        try:
            answer = await self._answered(scope, body, request)
        except StripeError as error:
            answer = Answer(error.status, orjson.dumps(error.body), error.headers)
        except Lost:
            scope["extensions"]["sandbox.cut"]["now"]()
            for _ in range(3):  # the server learns of it on the loop's next turns
                await asyncio.sleep(0)
            return
        await send(_start(answer, request))
        await send({"type": "http.response.body", "body": answer.body})

    async def _answered(self, scope: Scope, body: bytes, request: str) -> Answer:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        _authenticate(headers.get(b"authorization", ""))
        method, path = scope["method"], scope["path"]
        operation, ids = self.routes.find(method, path)
        counts = self.limiter.counts[operation.endpoint]
        counts["calls"] += 1
        try:
            self.limiter.admit(operation.endpoint)
            if (version := headers.get(b"stripe-version", API_VERSION)) != API_VERSION:
                raise unsimulated(f"API version {version} (only {API_VERSION})")
            key = (headers.get(b"idempotency-key") if method == "POST" else None) or None
            sent = decode(scope["query_string"] if method == "GET" else body)
            asked = orjson.dumps([path, sent], option=orjson.OPT_SORT_KEYS) if key else b""
            digest = blake2b(asked, digest_size=12).hexdigest()
            fault = self.faults.strike(ON_REQUEST, operation.endpoint, path)
            unit = Unit(self.account, request, key)
            answer = await self._faulty(Call(operation, ids, sent, unit, fault, digest))
        except StripeError as error:
            counts["limited" if error.status == 429 else "errors"] += 1  # noqa: PLR2004
            raise
        except Lost:
            counts["lost"] += 1
            raise
        counts["replayed"] += "idempotent-replayed" in answer.headers
        counts["ok" if answer.status < 400 else "errors"] += 1  # noqa: PLR2004
        return answer

    async def _faulty(self, call: Call) -> Answer:
        """Do the work with the call's accident before or after it."""
        params = call.fault.params if call.fault else {}
        if call.meets("answer_lost_before"):
            raise Lost
        if call.meets("late_delivery"):
            task = asyncio.create_task(self._arrives(call, params.get("seconds", 1)))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
            raise Lost
        if call.meets("error_500_before"):
            raise broken()
        if call.meets("rate_limited"):
            raise limited(params.get("reason", "endpoint-rate"))
        if call.meets("slow"):
            await asyncio.sleep(params.get("seconds", 5))
        answer = self._recalled(call) or await self._done(call)
        if call.meets("answer_lost_after"):
            raise Lost
        return answer

    async def _arrives(self, call: Call, seconds: float) -> None:
        await asyncio.sleep(seconds)
        with suppress(StripeError):  # nobody is left to hear it
            _ = self._recalled(call) or await self._done(call)

    def _recalled(self, call: Call) -> Answer | None:
        """Return a key's answer; 400 if the key is another request's, 409 while its request runs."""
        key, unit = call.unit.key or "", call.unit
        if len(key) > MAX_KEY:
            raise refuse("Idempotency keys have at most 255 characters.")
        if key in self._running:
            message = f"There is currently another in-progress request using this key: {key}."
            code = "idempotency_key_in_use"
            raise StripeError(409, message, type="idempotency_error", code=code)
        stored = unit.find("keys", key)
        if stored is None or stored["at"] + DAY <= unit.now:
            return None
        if stored["asked"] != call.asked:
            message = f"A key can only be used with the parameters it was first used with: {key}."
            raise refuse(message, type="idempotency_error")
        body = zlib.decompress(stored["body"].encode("latin-1"))
        replay = {"idempotent-replayed": "true", "original-request": stored["request"]}
        return Answer(stored["status"], body, replay)

    async def _done(self, call: Call) -> Answer:
        """Do the work when it is this request's turn."""
        operation, key = call.operation, call.unit.key
        params = check(call.sent, operation.endpoint)
        if call.meets("lock_timeout"):
            raise limited(None)
        method = operation.endpoint.partition(" ")[0]
        subject = call.ids[0] if call.ids else params.get("customer")
        self._running.update((key,) if key else ())
        try:
            name = None if method == "GET" else subject
            async with self.limiter.turn(name, listing=operation.lists):
                kind = "LIST" if operation.lists else method
                await self.limiter.delay(kind, len(params.get("lines") or ()))
                return self._kept(call, params)
        finally:
            self._running.discard(key or "")

    def _kept(self, call: Call, params: Params) -> Answer:
        """Run the operation and keep its result, all in one step that nothing can interrupt."""
        unit, headers, status = call.unit, {}, 200
        try:
            shown = self._shown(call, params)
        except Exception as error:  # noqa: BLE001
            if not isinstance(error, StripeError):
                traceback.print_exc()
                error = broken()
            status, shown, headers = error.status, error.body, error.headers
            if not error.keep:
                unit.discard()
        body = orjson.dumps(shown)
        if unit.key:
            kept = {"id": unit.key, "at": unit.now, "asked": call.asked, "request": unit.request}
            squeezed = zlib.compress(body, 1).decode("latin-1")
            unit.put("keys", kept | {"status": status, "body": squeezed})
        unit.commit()
        return Answer(status, body, headers)

    def _shown(self, call: Call, params: Params) -> Json:
        paths = params.pop("expand", None) or []
        if call.meets("partial_500_after") and params.get("lines"):
            params["lines"] = params["lines"][: (len(params["lines"]) + 1) // 2]
        shown = call.operation.perform(call.unit, params, call.ids)
        if call.meets("error_500_after", "partial_500_after"):
            raise broken(keep=True)
        for path in paths:
            shown = expand(call.unit, shown, path)
        return shown


def _authenticate(authorization: str) -> None:
    scheme, _, key = authorization.partition(" ")
    if scheme == "Basic":  # as curl -u sends it
        with suppress(ValueError):
            key = base64.b64decode(key + "==").decode("latin-1").partition(":")[0]
    if key.startswith(("sk_live_", "rk_live_")):
        message = "This is a local sandbox and you sent it a live mode key. Use an sk_test_ key."
        raise StripeError(401, message, code="livemode_mismatch")
    if not key.startswith(("sk_test_", "rk_test_")):
        raise StripeError(401, "You did not provide an API key (Authorization: Bearer sk_test_…).")


def _start(answer: Answer, request: str) -> dict[str, Any]:
    headers = {"content-type": "application/json", "stripe-version": API_VERSION, **answer.headers}
    headers["content-length"] = str(len(answer.body))
    if answer.status != 429 or "stripe-rate-limited-reason" in headers:  # noqa: PLR2004
        headers["request-id"] = request  # Stripe gives lock timeouts none
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": answer.status, "headers": encoded}
