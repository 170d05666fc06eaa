"""What is asked at nearly the same time is asked for once."""

import asyncio
from collections.abc import Sequence

from billing.cache.batcher import Tick

HOUR = 3600.0


class Asked:
    """Answers each question with itself, and remembers what came together."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    async def __call__(self, questions: Sequence[int]) -> list[int]:
        """Answer all of them at once."""
        self.batches.append(list(questions))
        return list(questions)


async def test_a_small_batch_waits_for_more_and_a_large_one_does_not() -> None:
    """Two of two come in different turns of the loop; nobody waits the hour."""
    asked = Asked()
    tick = Tick(asked, wait=HOUR, enough=2)
    first = tick.ask(1)
    for _ in range(5):
        await asyncio.sleep(0)
    assert asked.batches == []
    async with asyncio.timeout(10):
        assert (await tick.ask(2), await first) == (2, 1)
    assert asked.batches == [[1, 2]]


async def test_one_that_stays_alone_is_answered_when_the_wait_is_over() -> None:
    """A question that nobody joins is a batch of its own, again and again."""
    asked = Asked()
    tick = Tick(asked, wait=0.01, enough=2)
    async with asyncio.timeout(10):
        assert [await tick.ask(1), await tick.ask(2)] == [1, 2]
    assert asked.batches == [[1], [2]]


async def test_without_a_wait_only_one_turn_of_the_loop_is_gathered() -> None:
    """What is asked in one turn goes together at once."""
    asked = Asked()
    tick = Tick(asked)
    assert await asyncio.gather(tick.ask(1), tick.ask(2)) == [1, 2]
    assert asked.batches == [[1, 2]]
