"""The DataLoader: batches, and the three problems of aiodataloader that it fixes."""

import asyncio
import gc
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from resolvers.dataloaders.base import Loader
from tests.support.wait import wait_for_value

HANG = 2  # seconds until a wait counts as a hang


@dataclass
class Source:
    """Doubles numbers and records its batches; *gate* delays them, *failure* fails them."""

    batches: list[list[int]] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event | None = None
    failure: BaseException | None = None

    async def batch(self, keys: Sequence[int]) -> list[int | BaseException]:
        """One batch."""
        self.batches.append(list(keys))
        self.started.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return [2 * key for key in keys]


async def test_one_batch_per_tick_and_one_load_per_key() -> None:
    """Twenty invoices of one customer are one load of the customer."""
    source = Source()
    loader: Loader[int, int] = Loader(source.batch)
    assert await asyncio.gather(*(loader.load(key) for key in (1, 2, 1))) == [2, 4, 2]
    assert await loader.load(1) == 2
    assert source.batches == [[1, 2]]


async def test_cancelled_caller_does_not_affect_others() -> None:
    """Aiodataloader would raise CancelledError in every other and later caller."""
    source = Source(gate=asyncio.Event())
    loader: Loader[int, int] = Loader(source.batch)
    cancelled, other = asyncio.create_task(loader.load(1)), asyncio.create_task(loader.load(1))
    await source.started.wait()
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    assert source.gate is not None
    source.gate.set()
    assert await asyncio.wait_for(other, HANG) == 2
    assert await asyncio.wait_for(loader.load(1), HANG) == 2


@pytest.mark.parametrize("failure", [asyncio.CancelledError(), ValueError("no")])
async def test_failed_batch_fails_every_caller(failure: BaseException) -> None:
    """Aiodataloader would leave the callers of a cancelled batch waiting for ever."""
    loader: Loader[int, int] = Loader(Source(failure=failure).batch)
    errors = await asyncio.wait_for(
        asyncio.gather(loader.load(1), loader.load(2), return_exceptions=True), HANG
    )
    assert all(isinstance(error, Exception) for error in errors)


async def test_failure_of_one_key_is_isolated() -> None:
    """An invoice that cannot be loaded does not affect the rest of the page."""

    async def one(key: int) -> int:
        if key == 1:
            raise asyncio.CancelledError
        if key == 2:
            raise ValueError("two")
        return key

    loader = Loader.per_key(one)
    results = await asyncio.wait_for(
        asyncio.gather(*(loader.load(key) for key in (1, 2, 3)), return_exceptions=True), HANG
    )
    assert [type(result) for result in results] == [ConnectionAbortedError, ValueError, int]


async def test_primed_key_is_not_loaded() -> None:
    """A page of invoices primes each of them."""
    source = Source()
    loader: Loader[int, int] = Loader(source.batch)
    loader.prime(1, 20)
    assert await loader.load(1) == 20
    assert source.batches == []


async def test_running_batch_is_not_garbage_collected() -> None:
    """Aiodataloader drops its batch's task, and the loop holds tasks only weakly."""
    waits: list[weakref.ref[asyncio.Future[int]]] = []

    async def one(key: int) -> int:
        arriving: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waits.append(weakref.ref(arriving))
        return key + await arriving

    loading = asyncio.create_task(Loader.per_key(one).load(1))

    async def started() -> bool:
        return bool(waits)

    await wait_for_value(started, wanted=True)
    gc.collect()
    arriving = waits[0]()
    assert arriving is not None
    arriving.set_result(1)
    assert await asyncio.wait_for(loading, HANG) == 2


async def test_failure_without_callers_is_not_logged() -> None:
    """A cancelled execution drops its resolvers; their loads may fail silently."""
    logged: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    source = Source(gate=asyncio.Event(), failure=ValueError("no"))
    loader: Loader[int, int] = Loader(source.batch)
    dropped = loader.load(1)
    dropped.send(None)
    dropped.close()
    assert source.gate is not None
    source.gate.set()
    with pytest.raises(ValueError, match="no"):
        await loader.load(1)
    gc.collect()
    assert logged == []
