"""The read cache's data in Redis: its keys, its scripts, and the handling of lost connections.

Entries are hashes, generations strings, write intents sorted sets; every change of them is one script
in ``scripts``. All keys begin with the server's run id: a failover may restore old generations, and under
another run id they are not read. One server, no cluster: the cache may be lost at any time.
"""

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self, cast

import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError  # noqa: A004 redis's own, not the builtin

from billing.cache.entries import CacheEntry
from billing.errors import Unavailable
from billing.redis_clients import UNREACHABLE, Cooldown, awaited, handshake, load_script

log = structlog.get_logger(__name__)
Command = Callable[[str], Awaitable[Any] | Any]
"""Sends a command, given the prefix of its keys."""

TIMEOUT_SECONDS = 2.0  # longer than any script takes, also on a starved machine
COOLDOWN_SECONDS = 0.5  # of reads; invalidations are always sent
GENERATION_TTL_MS = 86_400_000  # an expired generation only causes a miss


class LookupState(StrEnum):
    """State of an entry, as ``look.lua`` defines it."""

    HIT = "hit"
    STALE = "stale"
    MISS = "miss"
    WAIT = "wait"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Lookup:
    """An entry in Redis: its current *generations*, and the *lock_token* of an acquired load lock or "".

    *last_value* is the last stored value, valid or not; the seconds are the time left.
    """

    state: LookupState
    generations: tuple[bytes, ...]
    lock_token: str
    last_value: bytes
    fresh_seconds: float
    usable_seconds: float

    @classmethod
    def from_reply(cls, reply: list[Any]) -> Self:
        """Decode the reply of ``look.lua`` for one entry."""
        state, generations, lock_token, last_value, fresh_ms, usable_ms = reply
        return cls(
            state=LookupState(state.decode()),
            generations=tuple(generations.split(b" ")),
            lock_token=lock_token.decode(),
            last_value=last_value or b"",
            fresh_seconds=fresh_ms / 1000,
            usable_seconds=usable_ms / 1000,
        )


@dataclass(frozen=True, slots=True)
class FillRequest:
    """A value to store, and the values of *others* that the same load returned; times in seconds."""

    entry: CacheEntry
    lookup: Lookup
    value: bytes
    fresh_ttl: float
    usable_ttl: float
    ttl: float
    others: Sequence[tuple[CacheEntry, bytes]] = ()


class CacheUnavailable(Unavailable):
    """The cache's Redis server did not answer."""

    def __init__(self) -> None:
        super().__init__("The cache's server cannot be reached; try again.", retry_after=1)


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
        options |= {"retry": Retry(NoBackoff(), 1), "retry_on_error": [ConnectionError]}
        self._reader = Redis.from_url(url, single_connection_client=True, **options)
        self._prefix: str | None = None
        self._cooldown = Cooldown(COOLDOWN_SECONDS)
        self._lookup_script = load_script(self.redis, "billing.cache", "look")
        self._fill_script = load_script(self.redis, "billing.cache", "fill")
        self._release_script = load_script(self.redis, "billing.cache", "fail")
        self._invalidate_script = load_script(self.redis, "billing.cache", "forget")
        self._begin_writes_script = load_script(self.redis, "billing.cache", "intend")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._reader.aclose()
        await self.redis.aclose()

    async def generations(self, names: Sequence[str]) -> dict[str, bytes]:
        """The values of these generations; an expired one is replaced by a new unique value."""
        values = await self._read_generations(names)
        if expired := [name for name, value in values.items() if value is None]:
            await self.invalidate(expired, min_interval=GENERATION_TTL_MS)
            values |= await self._read_generations(expired)
        if None in values.values():
            raise CacheUnavailable
        return values

    async def lookup(
        self, entries: Sequence[CacheEntry], lock_ttl: float | None = None
    ) -> list[Lookup]:
        """Look up *entries*; with *lock_ttl* (seconds), acquire the load lock of those not fresh."""

        def command(prefix: str) -> Awaitable[Any]:
            keys = [key for entry in entries for key in _keys(prefix, entry)]
            lock_ms = "" if lock_ttl is None else _ms(lock_ttl)
            args: list[Any] = [_nonce(), lock_ms, GENERATION_TTL_MS]
            args += [len(entry.generations) for entry in entries]
            return self._lookup_script(keys, args, self._reader)

        return [Lookup.from_reply(reply) for reply in await self._call_unless_cooling(command)]

    async def fill(self, request: FillRequest) -> bool:
        """Store a loaded value; False if its generations or its load lock have changed since the lookup."""

        def command(prefix: str) -> Awaitable[Any]:
            entry, others = request.entry, request.others
            keys = [*_keys(prefix, entry), *(f"{prefix}w:{name}" for name in entry.generations)]
            keys += [key for other, _ in others for key in _keys(prefix, other)]
            ttls = [_ms(request.fresh_ttl), _ms(request.usable_ttl), _ms(request.ttl)]
            under = b" ".join(request.lookup.generations)
            args: list[Any] = [request.lookup.lock_token, len(entry.generations), under]
            args += [request.value, *ttls, _nonce(), GENERATION_TTL_MS]
            return self._fill_script(keys, [*args, *(value for _, value in others)])

        return bool(await self._call_unless_cooling(command))

    async def release_load_lock(self, entry: CacheEntry, lock_token: str, cooldown: float) -> None:
        """Release a load lock; for *cooldown* seconds it cannot be acquired."""
        args: list[Any] = [lock_token, _ms(cooldown)]
        await self._call_unless_cooling(
            lambda prefix: self._release_script([_entry_key(prefix, entry)], args)
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
            args: list[Any] = [_nonce(), GENERATION_TTL_MS, len(names), _ms(min_interval)]
            return self._invalidate_script(keys, args)

        return [bool(replaced) for replaced in await self._call(command)]

    async def begin_writes(self, names: Sequence[str], ttl: float) -> None:
        """Announce a write to Stripe that may take *ttl* seconds."""
        args: list[Any] = [_nonce(), _ms(ttl)]
        await self._call(
            lambda prefix: self._begin_writes_script([f"{prefix}w:{name}" for name in names], args)
        )

    async def _read_generations(self, names: Sequence[str]) -> dict[str, Any]:
        values = await self._call_unless_cooling(
            lambda prefix: self._reader.mget([f"{prefix}g:{name}" for name in names])
        )
        return dict(zip(names, values, strict=True))

    async def is_on(self, run_id: str) -> bool:
        """True if the server is *run_id*; CacheUnavailable if it does not answer."""
        await self._call(lambda _: self.redis.ping())
        return self._prefix == _prefix(run_id)

    async def _call_unless_cooling(self, command: Command) -> Any:
        if self._cooldown.active:
            raise CacheUnavailable
        try:
            return await self._call(command)
        except CacheUnavailable:
            self._cooldown.start()
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
        except UNREACHABLE as error:
            log.warning("cache.unavailable", error=type(error).__name__)
            raise CacheUnavailable from error
        raise CacheUnavailable

    async def _on_connect(self, connection: AbstractConnection) -> None:
        info = await handshake(connection, "server")
        self._prefix = _prefix(info.partition(b"run_id:")[2].split(maxsplit=1)[0].decode())


def _prefix(run_id: str) -> str:
    return f"rc:{run_id[:16]}:"


def _keys(prefix: str, entry: CacheEntry) -> list[str]:
    return [_entry_key(prefix, entry), *(f"{prefix}g:{name}" for name in entry.generations)]


def _entry_key(prefix: str, entry: CacheEntry) -> str:
    """The key of a stored value; change it together with the encoding of values.

    The keys of generations must stay: during a rolling deploy, the two versions must see each other's
    invalidations, but not each other's values.
    """
    return f"{prefix}r:{entry.key}"


def _nonce() -> str:
    return os.urandom(8).hex()


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
