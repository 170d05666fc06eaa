"""A request's way through: who, how often, which accident, once only, one at a time, done, kept."""

import asyncio
import base64
import traceback
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson
from starlette.types import Receive, Scope, Send

from sandbox.account import DAY, Account
from sandbox.actions import Operation, Routes
from sandbox.errors import StripeError, broken, limited, refuse, unsimulated
from sandbox.forms import Params, check, decode
from sandbox.hostility import ON_REQUEST, Faults, Limiter
from sandbox.resources import expand
from sandbox.sdk import API_VERSION, Json

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
    ids: Sequence[str]
    params: Params
    request: str
    key: str
    asked: str
    fault: dict[str, Any]


class Api:
    """The ASGI application under ``/v1``."""

    def __init__(self, account: Account, routes: Routes, limiter: Limiter, faults: Faults) -> None:
        self.account, self.routes, self.limiter, self.faults = account, routes, limiter, faults
        self._running: set[str] = set()

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
            key = headers.get(b"idempotency-key", "") if method == "POST" else ""
            params = check(
                decode(scope["query_string"] if method == "GET" else body), operation.endpoint
            )
            asked = orjson.dumps([path, params], option=orjson.OPT_SORT_KEYS) if key else b""
            digest = blake2b(asked, digest_size=12).hexdigest()
            fault = self.faults.strike(ON_REQUEST, operation.endpoint, path)
            answer = await self._met(Call(operation, ids, params, request, key, digest, fault))
        except (StripeError, Lost) as error:
            status = error.status if isinstance(error, StripeError) else None
            counts[{None: "lost", 429: "limited"}.get(status, "errors")] += 1
            raise
        counts["replayed"] += "idempotent-replayed" in answer.headers
        counts["ok" if answer.status < 400 else "errors"] += 1  # noqa: PLR2004
        return answer

    async def _met(self, call: Call) -> Answer:
        """Do the work, with the call's accident before or after it."""
        fault = call.fault
        match fault["kind"]:
            case "answer_lost_before":
                raise Lost
            case "late_delivery":
                asyncio.get_running_loop().call_later(fault["seconds"], self._arrives, call)
                raise Lost
            case "error_500_before":
                raise broken()
            case "rate_limited" | "lock_timeout":
                raise limited(fault.get("reason"))
            case "slow":
                await asyncio.sleep(fault["seconds"])
        answer = self._recalled(call) or await self._in_turn(call)
        if fault["kind"] == "answer_lost_after":
            raise Lost
        return answer

    async def _in_turn(self, call: Call) -> Answer:
        method, lists = call.operation.endpoint.partition(" ")[0], call.operation.lists
        written = call.ids[0] if call.ids else call.params.get("customer")
        self._running.update({call.key} if call.key else ())
        try:
            async with self.limiter.turn(None if method == "GET" else written, listing=lists):
                lines = call.params.get("lines") or ()
                await self.limiter.delay("LIST" if lists else method, len(lines))
                return self._done(call)
        finally:
            self._running.discard(call.key)

    def _arrives(self, call: Call) -> None:
        with suppress(StripeError):  # nobody is left to hear it
            _ = self._recalled(call) or self._done(call)

    def _recalled(self, call: Call) -> Answer | None:
        """Return a key's answer; 400 if the key is another request's, 409 while its request runs."""
        if len(call.key) > MAX_KEY:
            raise refuse(f"Idempotency keys have at most {MAX_KEY} characters.")
        if call.key in self._running:
            message = f"There is currently another in-progress request using this key: {call.key}."
            code = "idempotency_key_in_use"
            raise StripeError(409, message, type="idempotency_error", code=code)
        stored = self.account.rows["keys"].get(call.key)
        if stored is None or stored["at"] + DAY <= self.account.now:
            return None
        if stored["asked"] != call.asked:
            message = f"Keys can only be used with the parameters of their first use: {call.key}."
            raise refuse(message, type="idempotency_error")
        replay = {"idempotent-replayed": "true", "original-request": stored["request"]}
        body = zlib.decompress(stored["body"].encode("latin-1"))
        return Answer(stored["status"], body, replay)

    def _done(self, call: Call) -> Answer:
        """Run the operation and keep its result, all in one step that nothing can interrupt."""
        account, headers, status = self.account, {}, 200
        with account.unit(call.request, call.key or None):
            try:
                shown = self._shown(call)
            except Exception as error:  # noqa: BLE001
                if not isinstance(error, StripeError):
                    traceback.print_exc()
                    error = broken()
                status, shown, headers = error.status, error.body, error.headers
                if not error.keep:
                    account.undo()
            body = orjson.dumps(shown)
            if call.key:
                kept = {"id": call.key, "at": account.now, "asked": call.asked, "status": status}
                squeezed = zlib.compress(body, 1).decode("latin-1")
                account.put("keys", kept | {"request": call.request, "body": squeezed})
        return Answer(status, body, headers)

    def _shown(self, call: Call) -> Json:
        params, kind = call.params, call.fault["kind"]
        paths, lines = params.pop("expand", None) or [], params.get("lines")
        if kind == "partial_500_after" and lines:
            params["lines"] = lines[: (len(lines) + 1) // 2]
        shown = call.operation.perform(self.account, params, call.ids)
        if kind in ("error_500_after", "partial_500_after"):
            raise broken(keep=True)
        for path in paths:
            shown = expand(self.account, shown, path)
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
