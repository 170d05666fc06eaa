"""A Redis whose data may vanish and whose failures are not errors: the cache's server, shared by all processes."""

import time
from collections.abc import Callable
from typing import Any, Self

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from billing.redis_reply import awaited

log = structlog.get_logger()

# After a failure, so that an unreachable server delays one request in a while, and not every one.
COOLDOWN_SECONDS = 5.0


class BestEffortRedis:
    """Executes commands on *client*; they return None while the server is unreachable."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._retry_at = 0.0

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Use the Redis at *url*, which may be down now; ``close`` it in the end."""
        return cls(Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1))

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()

    async def execute(self, command: Callable[[], Any]) -> Any:
        """Return the reply to *command*; None on failure, and for `COOLDOWN_SECONDS` after one."""
        if time.monotonic() < self._retry_at:
            return None
        try:
            return await awaited(command())
        except RedisError as error:
            self._retry_at = time.monotonic() + COOLDOWN_SECONDS
            log.warning("gateway.redis_unavailable", fault=type(error).__name__)
            return None
