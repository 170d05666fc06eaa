"""A Redis whose data may vanish and whose failures are not errors: the cache's server, shared by all processes."""

from collections.abc import Callable
from typing import Any, Self

import structlog
from redis.asyncio import Redis

from billing.redis_clients import UNREACHABLE, Cooldown, awaited

log = structlog.get_logger()

COOLDOWN_SECONDS = 5.0


class BestEffortRedis:
    """Executes commands on *client*; they return None while the server is unreachable."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._cooldown = Cooldown(COOLDOWN_SECONDS)

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Use the Redis at *url*, which may be down now; ``close`` it in the end."""
        return cls(Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1))

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()

    async def execute(self, command: Callable[[], Any]) -> Any:
        """Return the reply to *command*; None on failure, and for `COOLDOWN_SECONDS` after one."""
        if self._cooldown.active:
            return None
        try:
            return await awaited(command())
        except UNREACHABLE as error:
            self._cooldown.start()
            log.warning("gateway.redis_unavailable", fault=type(error).__name__)
            return None
