"""The guard around aiodataloader: one batch a tick, and none of its three traps."""

import asyncio
import gc
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from resolvers.dataloaders.base import Loader
from tests.support.polling import until

HANG = 2  # seconds, after which something hangs


@dataclass
class Source:
    """Doubles numbers, remembers its batches; *gate* holds them back, *failure* ends them."""

    batches: list[list[int]] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event | None = None
    failure: BaseException | None = None

    async def batch(self, keys: Sequence[int]) -> list[int | BaseException]:
        """One batch."""
        self.batches.append(list(keys))
        self.begun.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return [2 * key for key in keys]


async def test_a_tick_is_one_batch_and_a_key_is_loaded_once() -> None:
    """Twenty invoices of one customer are one load of the customer."""
    source = Source()
    loader: Loader[int, int] = Loader(source.batch)
    assert await asyncio.gather(*(loader.load(key) for key in (1, 2, 1))) == [2, 4, 2]
    assert await loader.load(1) == 2
    assert source.batches == [[1, 2]]


async def test_a_caller_that_leaves_spoils_the_key_for_nobody() -> None:
    """Aiodataloader would answer CancelledError for ever: to who waits beside, and to who comes later."""
    source = Source(gate=asyncio.Event())
    loader: Loader[int, int] = Loader(source.batch)
    leaving, staying = asyncio.create_task(loader.load(1)), asyncio.create_task(loader.load(1))
    await source.begun.wait()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert source.gate is not None
    source.gate.set()
    assert await asyncio.wait_for(staying, HANG) == 2
    assert await asyncio.wait_for(loader.load(1), HANG) == 2


@pytest.mark.parametrize("failure", [asyncio.CancelledError(), ValueError("no")])
async def test_a_batch_that_ends_badly_leaves_nobody_waiting(failure: BaseException) -> None:
    """Aiodataloader would hang every caller of a cancelled batch."""
    loader: Loader[int, int] = Loader(Source(failure=failure).batch)
    answers = await asyncio.wait_for(
        asyncio.gather(loader.load(1), loader.load(2), return_exceptions=True), HANG
    )
    assert all(isinstance(each, Exception) for each in answers)


async def test_one_keys_failure_is_its_own() -> None:
    """An invoice that Stripe cannot show leaves the rest of the page standing."""

    async def one(key: int) -> int:
        if key == 1:
            raise asyncio.CancelledError
        if key == 2:
            raise ValueError("two")
        return key

    loader = Loader.each(one)
    answers = await asyncio.wait_for(
        asyncio.gather(*(loader.load(key) for key in (1, 2, 3)), return_exceptions=True), HANG
    )
    assert [type(each) for each in answers] == [ConnectionAbortedError, ValueError, int]


async def test_what_came_along_is_not_loaded_again() -> None:
    """A page of invoices brings each of them."""
    source = Source()
    loader: Loader[int, int] = Loader(source.batch)
    loader.prime(1, 20)
    assert await loader.load(1) == 20
    assert source.batches == []


async def test_a_batch_that_nobody_else_refers_to_is_not_collected() -> None:
    """Aiodataloader drops its batch's task, and the loop itself holds tasks only weakly."""
    waits: list[weakref.ref[asyncio.Future[int]]] = []

    async def one(key: int) -> int:
        arriving: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waits.append(weakref.ref(arriving))
        return key + await arriving

    loading = asyncio.create_task(Loader.each(one).load(1))

    async def begun() -> bool:
        return bool(waits)

    await until(begun, wanted=True)
    gc.collect()
    arriving = waits[0]()
    assert arriving is not None
    arriving.set_result(1)
    assert await asyncio.wait_for(loading, HANG) == 2


async def test_a_failure_that_nobody_waits_for_any_more_is_not_complained_of() -> None:
    """An execution that is given up drops its resolvers; what they were loading may fail quietly."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
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
    assert complaints == []
