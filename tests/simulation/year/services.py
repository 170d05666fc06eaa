"""The product's own services over the simulated Stripe: what gateways and workers share, with calls that may fail."""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from zlib import crc32

from redis.asyncio import Redis

from billing.audit import AuditLog
from billing.budget import Lane
from billing.cache.local_cache import CachedValue, Source
from billing.errors import OutcomeUnknown, StripeRejected
from billing.events import Inbox
from billing.services import Services
from billing.stripe import ApiResponse
from billing.stripe.price_catalog import PriceCatalog
from billing.stripe.reader import StripeReader
from billing.usage import CustomerId, Period
from tests.simulation.wire import Refusal, Request
from tests.simulation.workers import NoOp, translated
from tests.support.ledger import Proxy

if TYPE_CHECKING:
    from tests.simulation.year.world import YearWorld

PAGE = 100


class StripeClient:
    """The client of gateways and of the inbox: its reads fail now and then, its writes never."""

    def __init__(self, world: "YearWorld") -> None:
        self._world = world
        self._reads: Counter[str] = Counter()

    async def read(
        self, path: str, params: Mapping[str, Any] | None = None, *, lane: object
    ) -> dict[str, Any]:
        """Read one object or page."""
        if self._fails(path):
            raise OutcomeUnknown("read timed out")
        try:
            return self._world.stripe.get(path, params or {})
        except Refusal as refusal:
            raise StripeRejected(refusal.code, status=refusal.status) from None

    async def list_all(
        self, path: str, params: Mapping[str, Any] | None = None, *, lane: object
    ) -> list[dict[str, Any]]:
        """Read all pages."""
        found: list[dict[str, Any]] = []
        query = {**(params or {}), "limit": PAGE}
        while True:
            page = await self.read(path, query, lane=lane)
            found += page["data"]
            if not page["has_more"]:
                return found
            query["starting_after"] = found[-1]["id"]

    async def write(
        self, path: str, params: Mapping[str, Any], *, key: str, lane: object
    ) -> ApiResponse:
        """Write, as Support does to an invoice that is not the gateway's."""
        return translated(self._world.stripe.post(Request("POST", path, params, key), None))

    def _fails(self, path: str) -> bool:
        """Decide by the path, because the order of reads that run together is not the seed's.

        The list of prices never fails: the catalog would go on with the one that it has.
        """
        if path == "/v1/prices":
            return False
        self._reads[path] += 1
        share = crc32(f"{self._world.seed} {path} {self._reads[path]}".encode()) / 2**32
        return not self._world.recovering and share < self._world.fault_rate / 8


class PassThroughCache(NoOp):
    """A cache that keeps nothing; the real one has its own tests."""

    def __init__(self) -> None:
        self._reads = count()

    async def fetch(
        self, entry: object, load: Callable[[], Any], *, type_: object, split: Callable[[Any], Any]
    ) -> CachedValue:
        """Load."""
        value = await load()
        if value is not None:
            value, _ = split(value)
        read_at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(self._reads))
        return CachedValue(value, Source.STRIPE, read_at, None)

    async def generations(self, *names: str) -> list[bytes]:
        """Return that nothing has changed."""
        return [b""] * len(names)

    async def invalidate(self, *names: str) -> None:
        """Forget nothing."""

    async def invalidate_throttled(self, *names: str) -> tuple[str, ...]:
        """Forget nothing."""
        return names


class JobQueue:
    """A queue whose jobs start at once, or are lost."""

    def __init__(self, world: "YearWorld") -> None:
        self._world = world

    async def enqueue_flush(self, customer: CustomerId, period: Period, lane: Lane) -> None:
        """Start a worker."""
        await self._world.crew.start(customer, period, lane)

    async def enqueue_poll(self) -> None:
        """Poll for events at the next opportunity."""
        self._world.crons.poll_requested = True


def year_services(world: "YearWorld", redis: Redis) -> Services:
    """Return what gateways and workers get; usage that the ledger counts is seen by the books."""
    observed = Proxy(world.ledger.usage, record=world.books.observed(world.ledger.usage.record))
    cache, client = PassThroughCache(), StripeClient(world)
    reader = StripeReader(cast("Any", client), cast("Any", cache))
    absent: Any = SimpleNamespace(livemode=False)
    return Services(
        settings=absent,
        ledger=cast("Any", Proxy(world.ledger, usage=observed)),
        audit=AuditLog(redis),
        inbox=Inbox(redis),
        budget=absent,
        stripe=cast("Any", client),
        cache=cast("Any", cache),
        change_feed=cast("Any", NoOp()),
        price_catalog=PriceCatalog(reader, monotonic=lambda: world.now / 1000),
        line_index=absent,
        job_queue=cast("Any", JobQueue(world)),
    )
