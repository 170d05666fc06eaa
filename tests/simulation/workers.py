"""Workers that stop before each call of a dependency until the schedule lets them continue or kills them."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any, Protocol, cast

from billing.budget import Lane
from billing.errors import KeyExpired, OutcomeUnknown, StripeBusy, StripeRejected
from billing.invoicing.request_batch import StripeRequest
from billing.ledger import Ledger
from billing.stripe import ApiResponse
from billing.usage import CustomerId, Period
from tests.simulation.stripe_model import StripeModel
from tests.simulation.wire import Fault, Refusal, Reply, Request
from workers.flush.flush import flush
from workers.flush.outcome import FlushResult
from workers.flush.policy import FlushContext, FlushPolicy


class SimulatedWorld(Protocol):
    """What a worker needs of the world that it runs in."""

    now: int
    rng: Random
    counts: Counter[str]
    outcomes: Counter[str]
    ledger: Ledger
    price_catalog: Any
    flush_policy: FlushPolicy

    @property
    def stripe(self) -> StripeModel:
        """The Stripe account."""

    def next_fault(self) -> Fault | None:
        """Return the fault of the next write."""

    def next_read_fails(self) -> bool:
        """Return True if the next read fails."""

    async def check_write(self, request: StripeRequest, worker: "Worker") -> None:
        """Check what a write of *worker* has done."""


class Worker:
    """One running flush."""

    def __init__(
        self,
        world: "SimulatedWorld",
        customer: CustomerId,
        period: Period,
        lane: Lane = Lane.INTERVAL,
    ) -> None:
        self.world = world
        self.customer = customer
        self.lane = lane
        self.began_ms = world.now
        self.began_after = world.counts["rewinds"]
        self._gate: asyncio.Future[None] | None = None
        self._idle = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._flush(customer, period))
        self._task.add_done_callback(lambda _: self._idle.set())

    @property
    def done(self) -> bool:
        """True if the flush has ended."""
        return self._task.done()

    @property
    def result(self) -> FlushResult:
        """The result of the flush."""
        return self._task.result()

    async def wait_idle(self) -> None:
        """Wait until the worker is at its next call, or has ended."""
        await self._idle.wait()
        if self._task.done() and not self._task.cancelled():
            self._task.result()

    async def step(self) -> None:
        """Run one call."""
        self._idle.clear()
        if self._gate is not None and not self._gate.done():
            self._gate.set_result(None)
        await self.wait_idle()

    async def run(self) -> None:
        """Run the flush to its end."""
        await self.wait_idle()
        while not self.done:
            await self.step()

    async def die(self) -> None:
        """Kill the worker, as SIGKILL does."""
        await self._idle.wait()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def gate(self) -> None:
        """Wait at the start of a call."""
        self._gate = asyncio.get_running_loop().create_future()
        self._idle.set()
        await self._gate

    async def _flush(self, customer: CustomerId, period: Period) -> FlushResult:
        world = self.world
        context = FlushContext(
            ledger=cast("Any", GatedLedger(self)),
            stripe=cast("Any", GatedStripe(self)),
            price_catalog=world.price_catalog,
            cache=cast("Any", NoOp()),
            change_feed=cast("Any", NoOp()),
            clock=lambda: world.now / 1000,
            random=world.rng.random,
            policy=world.flush_policy,
        )
        result = await flush(customer, period, context, lane=self.lane)
        world.outcomes[result.outcome] += 1
        return result


class GatedLedger:
    """The real ledger, gated before each call of a part."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __getattr__(self, name: str) -> Any:
        return GatedPart(self._worker, getattr(self._worker.world.ledger, name))


class GatedPart:
    """A part of the real ledger, gated before each call."""

    def __init__(self, worker: Worker, part: object) -> None:
        self._worker = worker
        self._part = part

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._part, name)

        async def gated(*args: Any, **kwargs: Any) -> Any:
            await self._worker.gate()
            return await call(*args, **kwargs)

        return gated


class NoOp:
    """Cache and change feed, which do not affect money."""

    async def begin_write(self, *generations: str) -> None:
        """A write begins."""

    async def end_write(self, *generations: str) -> None:
        """A write ended."""

    async def publish(self, *changes: object) -> None:
        """Changes are published."""


class GatedStripe:
    """The client of the model: it translates errors as `billing.stripe` does, and fails as a network does."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._world = worker.world

    async def send(
        self, request: StripeRequest, *, lane: object, not_after: float | None = None
    ) -> ApiResponse:
        """Write; the worker may die before, during and after the call."""
        await self._worker.gate()
        if not_after is not None and self._world.now / 1000 > not_after:
            raise KeyExpired
        wire = Request(request.method, request.path, request.params, request.idempotency_key)
        reply = self._world.stripe.post(wire, self._world.next_fault())
        await self._world.check_write(request, self._worker)
        await self._worker.gate()  # the effect is there, the response is not
        return translated(reply)

    async def read(
        self, path: str, params: Mapping[str, Any] | None = None, *, lane: object
    ) -> Any:
        """Read one object or page."""
        await self._worker.gate()
        if self._world.next_read_fails():
            raise OutcomeUnknown("read timed out")
        try:
            body = self._world.stripe.get(path, params or {})
        except Refusal as refusal:
            raise StripeRejected(refusal.code, status=refusal.status) from None
        await self._worker.gate()
        return body

    async def list_all(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        lane: object,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Read all pages, or the first *limit* objects."""
        found: list[dict[str, Any]] = []
        query = {**(params or {}), "limit": 100}
        while True:
            page = await self.read(path, query, lane=lane)
            found += page["data"]
            if not page["has_more"] or (limit is not None and len(found) >= limit):
                return found[:limit]
            query["starting_after"] = found[-1]["id"]


def translated(reply: Reply) -> ApiResponse:
    """Return *reply* as the client of `billing.stripe` does, or raise its error."""
    error = reply.body.get("error", {}) if reply.status != 200 else {}
    code, param = error.get("code"), error.get("param")
    if reply.status == 200:
        return ApiResponse(reply.body, reply.replayed, None)
    if not reply.replayed and reply.status in (409, 429):
        raise StripeBusy(f"busy ({code})")
    if not reply.replayed and not 400 <= reply.status < 500:
        raise OutcomeUnknown("no usable answer")
    raise StripeRejected(
        str(code), status=reply.status, stripe_code=code, param=param, replayed=reply.replayed
    )
