"""The API under ``/v1``: authentication, limits, faults, idempotency keys, object locks, execution."""

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
from sandbox.admin import Sandbox
from sandbox.company import check_rights
from sandbox.errors import StripeError, bad_request, not_simulated, rate_limited, server_error
from sandbox.faults import REQUEST_FAULTS
from sandbox.params import Params, decode, validate
from sandbox.resources import expand
from sandbox.sdk import API_VERSION, Json

MAX_KEY: Final = 255


class ConnectionCut(Exception):
    """The client gets no response: its connection is cut."""


class Call(NamedTuple):
    """One request, matched to its operation; ``digest`` identifies its path and parameters."""

    operation: Operation
    ids: Sequence[str]
    params: Params
    request: str
    key: str
    digest: str
    fault: dict[str, Any]


class Api:
    """Handles all requests under ``/v1``."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.account, self.routes, self.faults = sandbox.account, sandbox.routes, sandbox.faults
        self.limiter = sandbox.limiter
        self._keys_in_use: set[str] = set()

    async def handle(self, request: Request) -> Response:
        """Respond to one request, or cut its connection."""
        name = self.account.new_id("req_")
        try:
            response = await self._respond(request, name)
        except StripeError as error:
            response = _response(error.body, error.status)
            response.headers.update(error.headers)
        except ConnectionCut:
            request.scope["extensions"]["sandbox.cut"]["now"]()
            for _ in range(3):  # the server notices it on the loop's next ticks
                await asyncio.sleep(0)
            return Response()
        response.headers["stripe-version"] = API_VERSION
        if response.status_code != 429 or "stripe-rate-limited-reason" in response.headers:  # noqa: PLR2004
            response.headers["request-id"] = name  # Stripe gives lock timeouts none
        return response

    async def _respond(self, request: Request, name: str) -> Response:
        headers, method, path = request.headers, request.method, request.scope["path"]
        api_key = _authenticate(headers.get("authorization", ""))
        operation, ids = self.routes.match(method, path)
        counts = self.limiter.counts[operation.endpoint]
        counts["calls"] += 1
        try:
            self.limiter.admit(operation.endpoint)
            check_rights(self.account, api_key, operation.endpoint)
            if (version := headers.get("stripe-version", API_VERSION)) != API_VERSION:
                raise not_simulated(f"API version {version} (only {API_VERSION})")
            key = headers.get("idempotency-key", "") if method == "POST" else ""
            form = request.scope["query_string"] if method == "GET" else await request.body()
            params = validate(decode(form), operation.endpoint)
            content = orjson.dumps([path, params], option=orjson.OPT_SORT_KEYS) if key else b""
            digest = blake2b(content, digest_size=12).hexdigest()
            fault = self.faults.consume(REQUEST_FAULTS, operation.endpoint, path)
            response = await self._apply_fault(
                Call(operation, ids, params, name, key, digest, fault)
            )
        except (StripeError, ConnectionCut) as error:
            status = error.status if isinstance(error, StripeError) else None
            counts[{None: "lost", 429: "limited"}.get(status, "errors")] += 1
            raise
        counts["replayed"] += "idempotent-replayed" in response.headers
        counts["ok" if response.status_code < 400 else "errors"] += 1  # noqa: PLR2004
        return response

    async def _apply_fault(self, call: Call) -> Response:
        """Execute the call, with its fault before or after."""
        fault = call.fault
        match fault["kind"]:
            case "answer_lost_before":
                raise ConnectionCut
            case "late_delivery":
                asyncio.get_running_loop().call_later(fault["seconds"], self._execute_late, call)
                raise ConnectionCut
            case "error_500_before":
                raise server_error()
            case "rate_limited" | "lock_timeout":
                raise rate_limited(fault.get("reason"))
            case "slow":
                await asyncio.sleep(fault["seconds"])
        response = self._stored_response(call) or await self._execute_exclusively(call)
        if fault["kind"] == "answer_lost_after":
            raise ConnectionCut
        return response

    def _execute_late(self, call: Call) -> None:
        with suppress(StripeError):  # the client has gone
            _ = self._stored_response(call) or self._execute(call)

    def _stored_response(self, call: Call) -> Response | None:
        """Return the key's stored response; 400 for other parameters, 409 while its request runs."""
        if len(call.key) > MAX_KEY:
            raise bad_request(f"Idempotency keys have at most {MAX_KEY} characters.")
        if call.key and call.key in self._keys_in_use:
            message = f"There is currently another in-progress request using this key: {call.key}."
            code = "idempotency_key_in_use"
            raise StripeError(409, message, type="idempotency_error", code=code)
        stored = self.account.rows["keys"].get(call.key)
        if stored is None or stored["at"] + DAY <= self.account.now:
            return None
        if stored["asked"] != call.digest:
            message = f"Keys can only be used with the parameters of their first use: {call.key}."
            raise bad_request(message, type="idempotency_error")
        body = zlib.decompress(stored["body"].encode("latin-1"))
        replay = {"idempotent-replayed": "true", "original-request": stored["request"]}
        return Response(body, stored["status"], replay, "application/json")

    async def _execute_exclusively(self, call: Call) -> Response:
        kind = "LIST" if call.operation.is_list else call.operation.endpoint.partition(" ")[0]
        written = call.ids[0] if call.ids else call.params.get("customer")
        self._keys_in_use.add(call.key)
        try:
            async with self.limiter.slot(kind, written, len(call.params.get("lines") or ())):
                return self._execute(call)
        finally:
            self._keys_in_use.discard(call.key)

    def _execute(self, call: Call) -> Response:
        """Run the operation and store its response under the key, without an await in between."""
        account, status = self.account, 200
        with account.transaction(request=call.request, key=call.key):
            try:
                shown = self._run_operation(call)
            except Exception as error:  # noqa: BLE001
                if not isinstance(error, StripeError):
                    traceback.print_exc()
                    error = server_error()
                status, shown = error.status, error.body
                if not error.commit:
                    account.rollback()
            response = _response(shown, status)
            if call.key:
                stored = {"id": call.key, "at": account.now, "asked": call.digest, "status": status}
                compressed = zlib.compress(response.body, 1).decode("latin-1")
                account.put("keys", stored | {"request": call.request, "body": compressed})
        return response

    def _run_operation(self, call: Call) -> Json:
        params, kind = call.params, call.fault["kind"]
        paths, lines = params.pop("expand", None) or [], params.get("lines")
        if kind == "partial_500_after" and lines:
            params["lines"] = lines[: (len(lines) + 1) // 2]
        shown = call.operation.perform(self.account, params, call.ids)
        if kind in ("error_500_after", "partial_500_after"):
            raise server_error(commit=True)
        for path in paths:
            shown = expand(self.account, shown, path)
        return shown


def _authenticate(authorization: str) -> str:
    """Return the API key; StripeError 401 if it is none for a test account."""
    scheme, _, key = authorization.partition(" ")
    if scheme == "Basic":  # as curl -u sends it
        with suppress(ValueError):
            key = base64.b64decode(key + "==").decode("latin-1").partition(":")[0]
    if key.startswith(("sk_live_", "rk_live_")):
        message = "This is a local sandbox and you sent it a live mode key. Use an sk_test_ key."
        raise StripeError(401, message, code="livemode_mismatch")
    if not key.startswith(("sk_test_", "rk_test_")):
        raise StripeError(401, "You did not provide an API key (Authorization: Bearer sk_test_…).")
    return key


def _response(body: Json, status: int) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
