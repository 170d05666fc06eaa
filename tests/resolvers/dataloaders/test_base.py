"""Loads of an operation: once for the same arguments, and safe under cancellation."""

import asyncio
import gc
import weakref
from collections.abc import Sequence

import pytest

from resolvers.dataloaders.base import DataLoaders, load_batch, load_once
from tests.support.wait import wait_until

HANG = 2  # seconds until a wait counts as a hang


class Numbers(DataLoaders):
    """Doubles numbers and records its loads; *gate* delays them, *failure* fails them."""

    def __init__(
        self, gate: asyncio.Event | None = None, failure: BaseException | None = None
    ) -> None:
        super().__init__()
        self.loaded: list[int] = []
        self.batches: list[list[int]] = []
        self.started = asyncio.Event()
        self.gate = gate
        self.failure = failure

    @load_once
    async def double(self, number: int) -> int:
        """Twice *number*."""
        self.loaded.append(number)
        self.started.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return 2 * number

    @load_once
    async def product(self, one: int, other: int = 1) -> int:
        """*one* times *other*."""
        self.loaded.append(one)
        return one * other

    @load_batch
    async def square(self, numbers: Sequence[int]) -> Sequence[int]:
        """The square of each number; the batches are recorded."""
        self.batches.append(list(numbers))
        return [number * number for number in numbers]

    def prime(self, number: int, value: int) -> None:
        """Set the result of `double`."""
        self._prime("double", number, value)


async def test_same_arguments_are_loaded_once() -> None:
    """Twenty invoices of one customer are one load of the customer."""
    numbers = Numbers()

    assert await asyncio.gather(*(numbers.double(number) for number in (1, 2, 1))) == [2, 4, 2]
    assert await numbers.double(1) == 2
    assert numbers.loaded == [1, 2]


async def test_keys_of_one_iteration_are_one_batch() -> None:
    """Twenty customers' snapshots are one command to the ledger."""
    numbers = Numbers()

    assert await asyncio.gather(*(numbers.square(number) for number in (3, 4, 3))) == [9, 16, 9]
    assert await numbers.square(4) == 16
    assert numbers.batches == [[3, 4]]


async def test_different_arguments_and_methods_are_different_loads() -> None:
    """Neither method nor keyword may be lost from the key."""
    numbers = Numbers()

    assert [await numbers.double(3), await numbers.product(3)] == [6, 3]
    assert [await numbers.product(3, 2), await numbers.product(3, other=5)] == [6, 15]


async def test_cancelled_caller_does_not_affect_others() -> None:
    """An operation may drop one field and go on with another that needs the same object."""
    numbers = Numbers(gate=asyncio.Event())
    cancelled = asyncio.create_task(numbers.double(1))
    other = asyncio.create_task(numbers.double(1))
    await numbers.started.wait()
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    assert cancelled.cancelled()
    assert numbers.gate is not None
    numbers.gate.set()

    assert await asyncio.wait_for(other, HANG) == 2
    assert await asyncio.wait_for(numbers.double(1), HANG) == 2


@pytest.mark.parametrize(
    ("failure", "raised"),
    [(asyncio.CancelledError(), ConnectionAbortedError), (ValueError("no"), ValueError)],
)
async def test_failed_load_fails_every_caller(
    failure: BaseException, raised: type[Exception]
) -> None:
    """A load that is cancelled must not cancel its callers, nor leave them waiting."""
    numbers = Numbers(failure=failure)

    errors = await asyncio.wait_for(
        asyncio.gather(numbers.double(1), numbers.double(1), return_exceptions=True), HANG
    )

    assert [type(error) for error in errors] == [raised, raised]
    assert numbers.loaded == [1]


async def test_finished_load_does_not_wait_for_others() -> None:
    """A customer from the cache is shown, and its fields are loaded, while Stripe is read for another object."""
    release = asyncio.Event()

    class Sources(DataLoaders):
        @load_once
        async def get(self, name: str) -> str:
            if name == "stripe":
                await release.wait()
            return name

    sources = Sources()
    slow = asyncio.create_task(sources.get("stripe"))

    assert await asyncio.wait_for(sources.get("cache"), HANG) == "cache"
    release.set()
    assert await asyncio.wait_for(slow, HANG) == "stripe"


async def test_primed_argument_is_not_loaded() -> None:
    """A page of invoices primes each of them, but does not replace one that was loaded."""
    numbers = Numbers()
    await numbers.double(2)
    numbers.prime(1, 20)
    numbers.prime(2, 20)

    assert [await numbers.double(1), await numbers.double(2)] == [20, 4]
    assert numbers.loaded == [2]


async def test_cleared_loads_are_loaded_again() -> None:
    """After a mutation, everything is read again."""
    numbers = Numbers()
    await numbers.double(1)
    numbers.clear()
    await numbers.double(1)

    assert numbers.loaded == [1, 1]


async def test_running_load_is_not_garbage_collected() -> None:
    """The loop holds tasks only weakly."""
    waits: list[weakref.ref[asyncio.Future[int]]] = []

    class Waiting(DataLoaders):
        @load_once
        async def add(self, number: int) -> int:
            arriving: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            waits.append(weakref.ref(arriving))
            return number + await arriving

    loading = asyncio.create_task(Waiting().add(1))
    await wait_until(lambda: waits)
    gc.collect()
    arriving = waits[0]()
    assert arriving is not None
    arriving.set_result(1)

    assert await asyncio.wait_for(loading, HANG) == 2


async def test_failure_without_callers_is_not_logged() -> None:
    """A cancelled execution drops its resolvers; their loads may fail silently."""
    logged: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    numbers = Numbers(gate=asyncio.Event(), failure=ValueError("no"))
    dropped = numbers.double(1)
    dropped.send(None)
    dropped.close()
    assert numbers.gate is not None
    numbers.gate.set()
    with pytest.raises(ValueError, match="no"):
        await numbers.double(1)
    numbers.clear()
    gc.collect()

    assert logged == []
