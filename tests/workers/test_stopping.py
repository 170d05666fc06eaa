"""A worker that is told to stop goes."""

import asyncio
import contextlib

from workers.main import insist


async def test_a_cancellation_that_was_swallowed_is_repeated() -> None:
    """redis-py may swallow the one that arq sends; the worker would ignore every SIGTERM from then on."""

    async def swallows_one() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    main = asyncio.create_task(swallows_one())
    insisting = asyncio.create_task(insist(main))
    await asyncio.sleep(0)
    main.cancel()

    await asyncio.wait([main], timeout=10)
    assert main.cancelled()
    await insisting


async def test_a_timeout_inside_is_no_reason_to_end() -> None:
    """Each command of redis-py runs into a timeout of 0 s, which cancels for a moment."""

    async def times_out() -> str:
        for _ in range(2000):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await asyncio.sleep(1)
        return "done"

    main = asyncio.create_task(times_out())
    insisting = asyncio.create_task(insist(main))

    assert await main == "done"
    await insisting
