"""The read cache's data in Redis: its keys, its scripts, and the handling of lost connections.

Entries are hashes, generations strings, write intents sorted sets; every change of them is one script
in ``scripts``. All keys begin with the server's run id: a failover may restore old generations, and under
another run id they are not read. One server, no cluster: the cache may be lost at any time.
"""

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, cast

import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import ConnectionError, RedisError  # noqa: A004 redis's own, not the builtin

from billing.cache.entries import CacheEntry
from billing.cache.lookup import FillRequest, Lookup
from billing.errors import Unavailable
from billing.redis_reply import awaited

log = structlog.get_logger(__name__)
Command = Callable[[str], Awaitable[Any] | Any]
"""Sends a command, given the prefix of its keys."""

TIMEOUT_SECONDS = 2.0  # longer than any script takes, also on a starved machine
COOLDOWN_SECONDS = 0.5  # no reads are sent after a failed one
GENERATION_TTL_MS = 86_400_000  # an expired generation only causes a miss


class CacheUnavailable(Unavailable):
    """The cache's Redis server did not answer."""

    def __init__(self) -> None:
        super().__init__("The cache's server cannot be reached; ask again.", retry_after=1)


@asynccontextmanager
async def open_redis_backend(url: str) -> AsyncIterator["RedisBackend"]:
    """A backend on the server at *url*, which may be down: each call handles that by itself."""
    backend = RedisBackend(url)
    try:
        yield backend
    finally:
        await backend.aclose()


class RedisBackend:
    """The commands of the read cache; each raises CacheUnavailable when Redis does not answer."""

    def __init__(self, url: str) -> None:
        options: dict[str, Any] = {
            "socket_timeout": TIMEOUT_SECONDS,
            "socket_connect_timeout": TIMEOUT_SECONDS,
            "redis_connect_func": self._on_connect,
        }
        self.redis = Redis.from_url(url, **options)
        # Every read sends one command at a time here. A connection outside the pool saves a quarter of
        # its cost; it retries once instead of being checked before use.
        retry_once: dict[str, Any] = {
            "retry": Retry(NoBackoff(), 1),
            "retry_on_error": [ConnectionError],
        }
        self._reader = Redis.from_url(url, single_connection_client=True, **options, **retry_once)
        self._prefix: str | None = None
        self._cooldown_until = 0.0
        self._lookup_script = self._script("look")
        self._fill_script = self._script("fill")
        self._release_script = self._script("fail")
        self._invalidate_script = self._script("forget")
        self._begin_writes_script = self._script("intend")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._reader.aclose()
        await self.redis.aclose()

    async def generations(self, names: Sequence[str]) -> dict[str, bytes]:
        """The values of these generations; an expired one is replaced by a new unique value."""
        values = await self._read_generations(names)
        expired = [name for name, value in values.items() if value is None]
        if expired:
            await self.invalidate(expired, min_interval=GENERATION_TTL_MS)
            values |= await self._read_generations(expired)
        if None in values.values():
            raise CacheUnavailable
        return cast("dict[str, bytes]", values)

    async def lookup(
        self, entries: Sequence[CacheEntry], lock_ttl: float | None = None
    ) -> list[Lookup]:
        """Look up *entries*; with *lock_ttl* (seconds), acquire the load lock of those not fresh."""

        def command(prefix: str) -> Awaitable[Any]:
            keys = [key for entry in entries for key in _keys(prefix, entry)]
            counts = [len(entry.generations) for entry in entries]
            args: list[Any] = [
                _nonce(),
                "" if lock_ttl is None else _ms(lock_ttl),
                GENERATION_TTL_MS,
                *counts,
            ]
            return self._lookup_script(keys, args, self._reader)

        return [Lookup.from_reply(reply) for reply in await self._call_unless_cooling(command)]

    async def fill(self, request: FillRequest) -> bool:
        """Store a loaded value; False if its generations or its load lock have changed since the lookup."""

        def command(prefix: str) -> Awaitable[Any]:
            entry, others = request.entry, request.others
            keys = [*_keys(prefix, entry), *(f"{prefix}w:{name}" for name in entry.generations)]
            keys += [key for other, _ in others for key in _keys(prefix, other)]
            ttls = [_ms(request.fresh_ttl), _ms(request.usable_ttl), _ms(request.ttl)]
            args: list[Any] = [
                request.lookup.lock_token,
                len(entry.generations),
                b" ".join(request.lookup.generations),
            ]
            args += [request.value, *ttls, _nonce(), GENERATION_TTL_MS]
            return self._fill_script(keys, [*args, *(value for _, value in others)])

        return bool(await self._call_unless_cooling(command))

    async def release_load_lock(self, entry: CacheEntry, lock_token: str, cooldown: float) -> None:
        """Release a load lock; for *cooldown* seconds it cannot be acquired."""
        await self._call_unless_cooling(
            lambda prefix: self._release_script(
                [f"{prefix}e:{entry.key}"], [lock_token, _ms(cooldown)]
            )
        )

    async def invalidate(
        self, names: Sequence[str], *, min_interval: float = 0, end_writes: bool = False
    ) -> list[bool]:
        """Replace generations, except those replaced less than *min_interval* seconds ago.

        *end_writes* also ends a write intent of each. Returns for each if it was replaced.
        """

        def command(prefix: str) -> Awaitable[Any]:
            keys = [f"{prefix}g:{name}" for name in names]
            keys += [f"{prefix}w:{name}" for name in names] if end_writes else []
            return self._invalidate_script(
                keys, [_nonce(), GENERATION_TTL_MS, len(names), _ms(min_interval)]
            )

        return [bool(replaced) for replaced in await self._call(command)]

    async def begin_writes(self, names: Sequence[str], ttl: float) -> None:
        """Announce a write to Stripe that may take *ttl* seconds."""
        await self._call(
            lambda prefix: self._begin_writes_script(
                [f"{prefix}w:{name}" for name in names], [_nonce(), _ms(ttl)]
            )
        )

    async def _read_generations(self, names: Sequence[str]) -> dict[str, bytes | None]:
        values = await self._call_unless_cooling(
            lambda prefix: self._reader.mget([f"{prefix}g:{name}" for name in names])
        )
        return dict(zip(names, values, strict=True))

    async def is_on(self, run_id: str) -> bool:
        """True if the server is *run_id*; CacheUnavailable if it does not answer."""
        await self._call(lambda _: self.redis.ping())
        return self._prefix == _prefix(run_id)

    async def _call_unless_cooling(self, command: Command) -> Any:
        if time.monotonic() < self._cooldown_until:
            raise CacheUnavailable
        try:
            return await self._call(command)
        except CacheUnavailable:
            self._cooldown_until = time.monotonic() + COOLDOWN_SECONDS
            raise

    async def _call(self, command: Command) -> Any:
        try:
            if self._prefix is None:
                await awaited(self.redis.ping())
            for _ in range(2):
                prefix = self._prefix
                reply = await awaited(command(cast("str", prefix)))
                if prefix == self._prefix:
                    return reply
                # Another server replied, which does not have the old one's keys.
        except (RedisError, OSError) as error:
            log.warning("cache.unavailable", error=type(error).__name__)
            raise CacheUnavailable from error
        raise CacheUnavailable

    async def _on_connect(self, connection: AbstractConnection) -> None:
        await connection.on_connect()
        await connection.send_command("INFO", "server")
        info = await connection.read_response()
        run_id = next(line for line in info.split(b"\r\n") if line.startswith(b"run_id:"))
        self._prefix = _prefix(run_id[7:].decode())

    def _script(self, name: str) -> AsyncScript:
        source = files("billing.cache").joinpath(f"scripts/{name}.lua").read_text()
        return cast("AsyncScript", self.redis.register_script(source))


def _prefix(run_id: str) -> str:
    return f"rc:{run_id[:16]}:"


def _keys(prefix: str, entry: CacheEntry) -> list[str]:
    return [f"{prefix}e:{entry.key}", *(f"{prefix}g:{name}" for name in entry.generations)]


def _nonce() -> str:
    return os.urandom(8).hex()


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
