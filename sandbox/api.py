"""A request's way through: who, how often, which accident, once only, one at a time, done, kept."""

import asyncio
import base64
import traceback
import zlib
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson
from starlette.requests import Request
from starlette.responses import Response

from sandbox.account import DAY
from sandbox.actions import Operation
from sandbox.admin import World
from sandbox.errors import StripeError, broken, limited, refuse, unsimulated
from sandbox.faults import ON_REQUEST
from sandbox.params import Params, check, decode
from sandbox.resources import expand
from sandbox.sdk import API_VERSION, Json

MAX_KEY: Final = 255


class Lost(Exception):
    """The caller gets no answer: its connection is cut."""


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
    """What answers under ``/v1``."""

    def __init__(self, world: World) -> None:
        self.account, self.routes, self.faults = world.account, world.routes, world.faults
        self.limiter = world.limiter
        self._running: set[str] = set()

    async def handle(self, request: Request) -> Response:
        """Answer one request, or cut its connection."""
        name = self.account.new_id("req_")
        try:
            answer = await self._answered(request, name)
        except StripeError as error:
            answer = _response(error.body, error.status)
            answer.headers.update(error.headers)
        except Lost:
            request.scope["extensions"]["sandbox.cut"]["now"]()
            for _ in range(3):  # the server learns of it on the loop's next turns
                await asyncio.sleep(0)
            return Response()
        answer.headers["stripe-version"] = API_VERSION
        if answer.status_code != 429 or "stripe-rate-limited-reason" in answer.headers:  # noqa: PLR2004
            answer.headers["request-id"] = name  # Stripe gives lock timeouts none
        return answer

    async def _answered(self, request: Request, name: str) -> Response:
        headers, method, path = request.headers, request.method, request.scope["path"]
        _authenticate(headers.get("authorization", ""))
        operation, ids = self.routes.find(method, path)
        counts = self.limiter.counts[operation.endpoint]
        counts["calls"] += 1
        try:
            self.limiter.admit(operation.endpoint)
            if (version := headers.get("stripe-version", API_VERSION)) != API_VERSION:
                raise unsimulated(f"API version {version} (only {API_VERSION})")
            key = headers.get("idempotency-key", "") if method == "POST" else ""
            form = request.scope["query_string"] if method == "GET" else await request.body()
            params = check(decode(form), operation.endpoint)
            asked = orjson.dumps([path, params], option=orjson.OPT_SORT_KEYS) if key else b""
            digest = blake2b(asked, digest_size=12).hexdigest()
            fault = self.faults.strike(ON_REQUEST, operation.endpoint, path)
            answer = await self._met(Call(operation, ids, params, name, key, digest, fault))
        except (StripeError, Lost) as error:
            status = error.status if isinstance(error, StripeError) else None
            counts[{None: "lost", 429: "limited"}.get(status, "errors")] += 1
            raise
        counts["replayed"] += "idempotent-replayed" in answer.headers
        counts["ok" if answer.status_code < 400 else "errors"] += 1  # noqa: PLR2004
        return answer

    async def _met(self, call: Call) -> Response:
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

    def _arrives(self, call: Call) -> None:
        with suppress(StripeError):  # nobody is left to hear it
            _ = self._recalled(call) or self._done(call)

    def _recalled(self, call: Call) -> Response | None:
        """Return a key's answer; 400 if the key is another request's, 409 while its request runs."""
        if len(call.key) > MAX_KEY:
            raise refuse(f"Idempotency keys have at most {MAX_KEY} characters.")
        if call.key and call.key in self._running:
            message = f"There is currently another in-progress request using this key: {call.key}."
            code = "idempotency_key_in_use"
            raise StripeError(409, message, type="idempotency_error", code=code)
        stored = self.account.rows["keys"].get(call.key)
        if stored is None or stored["at"] + DAY <= self.account.now:
            return None
        if stored["asked"] != call.asked:
            message = f"Keys can only be used with the parameters of their first use: {call.key}."
            raise refuse(message, type="idempotency_error")
        body = zlib.decompress(stored["body"].encode("latin-1"))
        replay = {"idempotent-replayed": "true", "original-request": stored["request"]}
        return Response(body, stored["status"], replay, "application/json")

    async def _in_turn(self, call: Call) -> Response:
        kind = "LIST" if call.operation.lists else call.operation.endpoint.partition(" ")[0]
        written = call.ids[0] if call.ids else call.params.get("customer")
        self._running.add(call.key)
        try:
            async with self.limiter.turn(kind, written, len(call.params.get("lines") or ())):
                return self._done(call)
        finally:
            self._running.discard(call.key)

    def _done(self, call: Call) -> Response:
        """Run the operation and keep its result, all in one step that nothing can interrupt."""
        account, status = self.account, 200
        with account.unit(request=call.request, key=call.key):
            try:
                shown = self._shown(call)
            except Exception as error:  # noqa: BLE001
                if not isinstance(error, StripeError):
                    traceback.print_exc()
                    error = broken()
                status, shown = error.status, error.body
                if not error.keep:
                    account.undo()
            answer = _response(shown, status)
            if call.key:
                kept = {"id": call.key, "at": account.now, "asked": call.asked, "status": status}
                squeezed = zlib.compress(answer.body, 1).decode("latin-1")
                account.put("keys", kept | {"request": call.request, "body": squeezed})
        return answer

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


def _response(body: Json, status: int) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
