"""What an answer of Redis's is to us: awaited, and within `ledger_asked` the ledger's, or its silence."""

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

from redis.exceptions import RedisError

from billing.errors import LedgerUnavailable

T = TypeVar("T")


async def reply(command: Awaitable[T] | T) -> T:
    """The answer of an asyncio Redis *command*, which redis-py 5.3 types as ``Awaitable[T] | T``."""
    return await cast("Awaitable[T]", command)


@contextmanager
def ledger_asked(otherwise: str) -> Iterator[None]:
    """Whatever keeps the ledger's server from answering in the block is LedgerUnavailable, saying *otherwise*."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise LedgerUnavailable(otherwise) from error
