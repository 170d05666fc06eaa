"""A request's way through: who, how often, which accident, once only, one at a time, done, kept."""

import asyncio
import base64
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from sandbox.account import API_VERSION, Account, Unit
from sandbox.errors import StripeError, broken, rate_limited, unsimulated
from sandbox.expand import expand
from sandbox.faults import ON_REQUEST, Fault, Faults
from sandbox.forms import Params, check, decode
from sandbox.idempotency import Keys, fingerprint
from sandbox.limits import Limiter
from sandbox.operations import Operation
from sandbox.routes import Routes

Headers = dict[bytes, bytes]
KEYS = ("sk_test_", "rk_test_")


class Lost(Exception):
    """The caller gets no answer: its connection is cut."""


@dataclass(slots=True)
class Answer:
    """Status, body and headers of one answer."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Call:
    """One request, matched and checked."""

    operation: Operation
    ids: list[str]
    params: Params
    unit: Unit
    path: str
    fault: Fault | None

    @property
    def accident(self) -> str:
        """The kind of fault that strikes this call, if any."""
        return self.fault.kind if self.fault else ""

    @property
    def subject(self) -> str | None:
        """The object that this call locks: what its path names, else its customer."""
        if self.operation.kind in ("GET", "LIST"):
            return None
        named: str | None = self.ids[0] if self.ids else self.params.get("customer")
        return named


class Api:
    """The ASGI application under ``/v1``."""

    def __init__(self, account: Account, routes: Routes, limiter: Limiter, faults: Faults) -> None:
        self.account, self.routes, self.limiter, self.faults = account, routes, limiter, faults
        self.keys = Keys()
        self._late: set[asyncio.Task[Any]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or cut its connection."""
        body = await _read(receive)
        headers: Headers = dict(scope["headers"])
        request = self.account.new_id("req_")
        try:
            answer = await self._answer(scope, headers, body, request)
        except StripeError as error:
            answer = Answer(error.status, orjson.dumps(error.body), error.headers)
        except Lost:
            await _cut(scope)
            return
        key = headers.get(b"idempotency-key")
        await send(_start(answer, request, key))
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, headers: Headers, body: bytes, request: str) -> Answer:
        _authenticate(headers)
        method, path = scope["method"], scope["path"]
        operation, ids = self.routes.find(method, path)
        counts = self.limiter.counts[operation.endpoint]
        counts["calls"] += 1
        try:
            self.limiter.admit(operation.endpoint)
            version = headers.get(b"stripe-version", API_VERSION.encode()).decode("latin-1")
            if version != API_VERSION:
                raise unsimulated(f"API version {version} (only {API_VERSION})")
            key = headers.get(b"idempotency-key", b"").decode("latin-1") if method == "POST" else ""
            unit = Unit(self.account, request, key or None)
            fault = self.faults.strike(ON_REQUEST, operation.endpoint, path)
            sent = decode(scope["query_string"] if method == "GET" else body)
            call = Call(operation, ids, {}, unit, path, fault)
            answer = await self._faulty(call, lambda: self._once(call, sent))
        except StripeError as error:
            counts["limited" if error.status == 429 else "errors"] += 1  # noqa: PLR2004
            raise
        except Lost:
            counts["lost"] += 1
            raise
        if "idempotent-replayed" in answer.headers:
            counts["replayed"] += 1
        counts["ok" if answer.status < 400 else "errors"] += 1  # noqa: PLR2004
        return answer

    async def _faulty(self, call: Call, work: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """Do the *work* with the call's accident before or after it."""
        params = call.fault.params if call.fault else {}
        match call.accident:
            case "answer_lost_before":
                raise Lost
            case "late_delivery":
                task = asyncio.create_task(_later(params.get("seconds", 1), work))
                self._late.add(task)
                task.add_done_callback(self._late.discard)
                raise Lost
            case "error_500_before":
                raise broken()
            case "rate_limited":
                raise rate_limited(params.get("reason", "endpoint-rate"))
            case "slow":
                await asyncio.sleep(params.get("seconds", 5))
        answer = await work()
        if call.accident == "answer_lost_after":
            raise Lost
        return answer

    async def _once(self, call: Call, sent: Params) -> Answer:
        """Replay the key's result, or do the work and store it."""
        key, method = call.unit.key, call.operation.endpoint.partition(" ")[0]
        asked = fingerprint(method, call.path, sent) if key else ""
        if key and (stored := self.keys.recall(call.unit, key, asked)):
            status, body, first = stored
            return Answer(status, body, {"idempotent-replayed": "true", "original-request": first})
        call.params = check(sent, call.operation.fields)
        if call.accident == "lock_timeout" and not (call.fault and call.fault.params.get("stored")):
            raise rate_limited(None)
        listing = call.operation.kind == "LIST"
        if key:
            self.keys.begin(key)
        try:
            async with self.limiter.turn(call.subject, listing=listing):
                await self.limiter.delay(call.operation.kind, len(call.params.get("lines") or ()))
                return self._execute(call, asked)
        finally:
            if key:
                self.keys.end(key)

    def _execute(self, call: Call, asked: str) -> Answer:
        """Run the operation and keep its result, all in one step that nothing can interrupt."""
        headers: dict[str, str] = {}
        try:
            body = self._performed(call)
            status = 200
        except StripeError as error:
            if not error.keep:
                call.unit.discard()
            status, body, headers = error.status, error.body, error.headers
        except Exception:  # noqa: BLE001
            traceback.print_exc()
            call.unit.discard()
            status, body = 500, broken().body
        packed = orjson.dumps(body)
        Keys.keep(call.unit, asked, status, packed)
        call.unit.commit()
        return Answer(status, packed, headers)

    def _performed(self, call: Call) -> Params:
        params = dict(call.params)
        paths = params.pop("expand", None) or []
        if call.accident == "lock_timeout":
            raise rate_limited(None)
        if call.accident == "partial_500_after" and params.get("lines"):
            params["lines"] = params["lines"][: (len(params["lines"]) + 1) // 2]
        shown = call.operation.handle(call.unit, params, *call.ids)
        if call.accident in ("error_500_after", "partial_500_after"):
            error = broken()
            error.keep = True
            raise error
        return expand(call.unit, shown, paths) if paths else shown


def _authenticate(headers: Headers) -> None:
    scheme, _, given = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given + "==").decode("latin-1").partition(":")[0]
        except ValueError:
            given = ""
    if not given:
        raise StripeError(
            401,
            "You did not provide an API key. You need to provide your API key in the Authorization "
            "header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
        )
    if given.startswith(("sk_live_", "rk_live_")):
        raise StripeError(
            401,
            "This is a local sandbox and you sent it a live mode key. It was refused unread; use "
            "any key that begins with sk_test_, and roll the live key if this was no accident.",
            code="livemode_mismatch",
        )
    if not given.startswith(KEYS):
        shown = given[:8] + "*" * max(len(given) - 12, 0) + given[-4:]
        raise StripeError(401, f"Invalid API Key provided: {shown}")


async def _later(seconds: float, work: Callable[[], Coroutine[Any, Any, Answer]]) -> None:
    await asyncio.sleep(seconds)
    try:
        await work()
    except (StripeError, Lost):
        return  # nobody is left to hear it


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _cut(scope: Scope) -> None:
    scope["extensions"]["sandbox.cut"]["now"]()
    for _ in range(3):  # the server learns of it on the loop's next turns
        await asyncio.sleep(0)


def _start(answer: Answer, request: str, key: bytes | None) -> dict[str, Any]:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer.body)).encode()),
        (b"stripe-version", API_VERSION.encode()),
    ]
    headers += [(name.encode(), value.encode()) for name, value in answer.headers.items()]
    is_lock = answer.status == 429 and "stripe-rate-limited-reason" not in answer.headers  # noqa: PLR2004
    if not is_lock:  # Stripe gives lock timeouts no request id
        headers.append((b"request-id", request.encode()))
    if key is not None:
        headers.append((b"idempotency-key", key))
    return {"type": "http.response.start", "status": answer.status, "headers": headers}
