"""redis-py 5.3 types every command as ``Awaitable[T] | T``; this says that ours are awaited."""

from collections.abc import Awaitable
from typing import TypeVar, cast

T = TypeVar("T")


async def reply(command: Awaitable[T] | T) -> T:
    """The answer of an asyncio Redis *command*."""
    return await cast("Awaitable[T]", command)
