"""Await commands of redis-py, and translate its errors into LedgerUnavailable."""

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

from redis.exceptions import RedisError

from billing.errors import LedgerUnavailable

T = TypeVar("T")


async def awaited(command: Awaitable[T] | T) -> T:
    """The reply to an asyncio *command*, which redis-py 5.3 types as ``Awaitable[T] | T``."""
    return await cast("Awaitable[T]", command)


@contextmanager
def ledger_errors(message: str) -> Iterator[None]:
    """Translate errors of the ledger's server in the block into LedgerUnavailable with *message*."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise LedgerUnavailable(message) from error
