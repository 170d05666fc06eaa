"""Batcher: requests submitted at nearly the same time are executed together."""

import asyncio
from collections.abc import Sequence

from billing.cache.batcher import Batcher

HOUR = 3600.0


class Recorder:
    """Returns each request as its result, and records the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    async def __call__(self, questions: Sequence[int]) -> list[int]:
        """Execute one batch."""
        self.batches.append(list(questions))
        return list(questions)


async def test_small_batch_lingers_and_full_batch_runs_at_once() -> None:
    """Two requests come in different loop iterations; neither waits the hour."""
    recorder = Recorder()
    batcher = Batcher(recorder, linger=HOUR, target_size=2)
    first = batcher.submit(1)
    for _ in range(5):
        await asyncio.sleep(0)
    assert recorder.batches == []
    async with asyncio.timeout(10):
        assert (await batcher.submit(2), await first) == (2, 1)
    assert recorder.batches == [[1, 2]]


async def test_single_request_runs_after_the_linger_time() -> None:
    """A request that no other joins is a batch of its own."""
    recorder = Recorder()
    batcher = Batcher(recorder, linger=0.01, target_size=2)
    async with asyncio.timeout(10):
        assert [await batcher.submit(1), await batcher.submit(2)] == [1, 2]
    assert recorder.batches == [[1], [2]]


async def test_batch_without_linger_covers_one_loop_iteration() -> None:
    """Requests of one iteration run together at once."""
    recorder = Recorder()
    batcher = Batcher(recorder)
    assert await asyncio.gather(batcher.submit(1), batcher.submit(2)) == [1, 2]
    assert recorder.batches == [[1, 2]]
