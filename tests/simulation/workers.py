"""Workers that stand still at every port call until the schedule lets them go on, or die there."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from billing.errors import KeyExpired, OutcomeUnknown, StripeBusy, StripeRejected
from billing.invoicing.snapshot import Op
from billing.stripe import Answer
from billing.usage import CustomerId, Period, Price
from tests.simulation.stripe_model import Refusal, Reply, Request
from workers.flush.flush import flush
from workers.flush.outcome import Ending
from workers.flush.policy import FlushPolicy, FlushPorts

if TYPE_CHECKING:
    from tests.simulation.world import World


class Worker:
    """One flush under way."""

    def __init__(self, world: "World", customer: CustomerId, period: Period) -> None:
        self.world = world
        self.began_after = world.counts["rewinds"]
        self._gate: asyncio.Future[None] | None = None
        self._idle = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._flush(customer, period))
        self._task.add_done_callback(lambda _: self._idle.set())

    @property
    def done(self) -> bool:
        """Whether the flush has ended."""
        return self._task.done()

    @property
    def result(self) -> Ending:
        """What the flush said."""
        return self._task.result()

    async def settle(self) -> None:
        """Until the worker stands at its next port call, or has ended."""
        await self._idle.wait()
        if self._task.done() and not self._task.cancelled():
            self._task.result()

    async def step(self) -> None:
        """One port call."""
        self._idle.clear()
        if self._gate is not None and not self._gate.done():
            self._gate.set_result(None)
        await self.settle()

    async def run(self) -> None:
        """All that is left."""
        await self.settle()
        while not self.done:
            await self.step()

    async def die(self) -> None:
        """SIGKILL: nothing of it runs any more."""
        await self._idle.wait()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def gate(self) -> None:
        """A port call begins here."""
        self._gate = asyncio.get_running_loop().create_future()
        self._idle.set()
        await self._gate

    async def _flush(self, customer: CustomerId, period: Period) -> Ending:
        world = self.world
        ports = FlushPorts(
            ledger=GatedLedger(self),
            stripe=GatedStripe(self),
            catalogue=GatedCatalogue(self),
            cache=Silent(),
            changes=Silent(),
            clock=lambda: world.now / 1000,
            random=world.rng.random,
            policy=FlushPolicy(quiet=world.quiet_ms),
        )
        result = await flush(customer, period, ports)
        world.endings[result.outcome] += 1
        return result


class GatedLedger:
    """The real ledger, one call at a time."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._worker.world.ledger, name)

        async def gated(*args: Any, **kwargs: Any) -> Any:
            await self._worker.gate()
            return await call(*args, **kwargs)

        return gated


class GatedCatalogue:
    """Prices never fail here; the catalogue has tests of its own."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def by_id(self, ids: Iterable[str]) -> Mapping[str, Price]:
        """Prices by id."""
        return {each: self._worker.world.prices_by_id[each] for each in ids}


class Silent:
    """Cache and listeners: told, and without consequence for money."""

    async def intend_write(self, *generations: str) -> None:
        """Told before a write."""

    async def written(self, *generations: str) -> None:
        """Told after it."""

    async def publish(self, *changes: object) -> None:
        """Told of the outcome."""


class GatedStripe:
    """The door to the model: translates as `billing.stripe` does, and fails as the network does."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._world = worker.world

    async def send(self, op: Op, *, lane: object, not_after: float | None = None) -> Answer:
        """A write: it may die before, on the way, and before the answer is read."""
        await self._worker.gate()
        if not_after is not None and self._world.now / 1000 > not_after:
            raise KeyExpired
        request = Request(op.method, op.path, op.params, op.key)
        reply = self._world.stripe.post(request, self._world.next_fault())
        await self._world.look_at_invoices(op, since=self._worker.began_after)
        await self._worker.gate()  # the effect is there, the answer is not
        return _translated(reply)

    async def read(
        self, path: str, params: Mapping[str, Any] | None = None, *, lane: object
    ) -> Any:
        """One object or page."""
        await self._worker.gate()
        if self._world.next_read_fails():
            raise OutcomeUnknown("read timed out")
        try:
            body = self._world.stripe.get(path, params or {})
        except Refusal as refusal:
            raise StripeRejected(refusal.code, status=refusal.status) from None
        await self._worker.gate()
        return body

    async def pages(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        lane: object,
    ) -> list[dict[str, Any]]:
        """All pages."""
        found: list[dict[str, Any]] = []
        query = {**(params or {}), "limit": 100}
        while True:
            page = await self.read(path, query, lane=lane)
            found += page["data"]
            if not page["has_more"]:
                return found
            query["starting_after"] = found[-1]["id"]


def _translated(reply: Reply) -> Answer:
    code = reply.body.get("error", {}).get("code") if reply.status != 200 else None
    if reply.status == 200:
        return Answer(reply.body, reply.replayed, None)
    if not reply.replayed and reply.status in (409, 429):
        raise StripeBusy(f"busy ({code})")
    if not reply.replayed and not 400 <= reply.status < 500:
        raise OutcomeUnknown("no usable answer")
    raise StripeRejected(str(code), status=reply.status, stripe_code=code, replayed=reply.replayed)
