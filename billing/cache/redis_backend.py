"""The read cache's side of Redis: its keys, its scripts, and what is made of losing it.

Entries are hashes, generations strings, write intents sorted sets; every change of them is one script
in ``scripts``. All keys begin with the server's run id: a failover may bring old generations
back to life, and under another run id nobody looks at them. One server, no cluster: nothing here is
worth more than the time it saves.
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

from billing.cache.entries import Entry
from billing.cache.lookup import Filling, Look
from billing.errors import Unavailable
from billing.redis_reply import reply

log = structlog.get_logger(__name__)
Ask = Callable[[str], Awaitable[Any] | Any]
"""A command, given the prefix of every key."""

ANSWER_SECONDS = 2.0  # longer than any script takes, also on a starved machine
PAUSE_SECONDS = 0.5  # how long reads leave a lost server alone
GENERATION_MS = 86_400_000  # a lapsed generation is a miss, no more


class CacheGone(Unavailable):
    """The cache's server did not answer."""

    def __init__(self) -> None:
        super().__init__("The cache's server cannot be reached; ask again.", retry_after=1)


@asynccontextmanager
async def open_cache_server(url: str) -> AsyncIterator["CacheServer"]:
    """A server that need not be there: losing it, now or later, is met call by call."""
    server = CacheServer(url)
    try:
        yield server
    finally:
        await server.aclose()


class CacheServer:
    """Every command the read cache sends; each raises CacheGone when Redis does not answer."""

    def __init__(self, url: str) -> None:
        options: dict[str, Any] = {
            "socket_timeout": ANSWER_SECONDS,
            "socket_connect_timeout": ANSWER_SECONDS,
            "redis_connect_func": self._connected,
        }
        self.redis = Redis.from_url(url, **options)
        # Verifying and looking is what every read does, one command at a time: a connection of its own
        # saves the pool's quarter of the cost, and tries a second time instead of looking whether it
        # is alive.
        again: dict[str, Any] = {
            "retry": Retry(NoBackoff(), 1),
            "retry_on_error": [ConnectionError],
        }
        self._reading = Redis.from_url(url, single_connection_client=True, **options, **again)
        self._prefix: str | None = None
        self._leave_until = 0.0
        self._look = self._script("look")
        self._fill = self._script("fill")
        self._fail = self._script("fail")
        self._forget = self._script("forget")
        self._intend = self._script("intend")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._reading.aclose()
        await self.redis.aclose()

    async def standing(self, names: Sequence[str]) -> dict[str, bytes]:
        """The values of these generations; one that has lapsed is made anew, so that it never returns."""
        values = await self._values(names)
        lapsed = [name for name, value in values.items() if value is None]
        if lapsed:
            await self.forget(lapsed, enough=GENERATION_MS)
            values |= await self._values(lapsed)
        if None in values.values():
            raise CacheGone
        return cast("dict[str, bytes]", values)

    async def look(self, entries: Sequence[Entry], lease: float | None = None) -> list[Look]:
        """What is known of *entries*; a token in an answer is good for *lease* seconds.

        Without a lease nobody is told to load anything.
        """

        def ask(prefix: str) -> Awaitable[Any]:
            keys = [key for entry in entries for key in _keys(prefix, entry)]
            counts = [len(entry.generations) for entry in entries]
            arguments = [_nonce(), "" if lease is None else _ms(lease), GENERATION_MS, *counts]
            return self._look(keys, cast("Any", arguments), self._reading)

        return [Look.of(answer) for answer in await self._read(ask)]

    async def fill(self, filling: Filling) -> bool:
        """Keep a loaded value; False when something changed since the order to load it."""

        def ask(prefix: str) -> Awaitable[Any]:
            entry, others = filling.entry, filling.others
            keys = [*_keys(prefix, entry), *(f"{prefix}w:{name}" for name in entry.generations)]
            keys += [key for other, _ in others for key in _keys(prefix, other)]
            lifetimes = [_ms(filling.fresh), _ms(filling.usable), _ms(filling.kept)]
            args: list[Any] = [
                filling.look.token,
                len(entry.generations),
                b" ".join(filling.look.generations),
            ]
            args += [filling.value, *lifetimes, _nonce(), GENERATION_MS]
            return self._fill(keys, [*args, *(value for _, value in others)])

        return bool(await self._read(ask))

    async def fail(self, entry: Entry, token: str, pause: float) -> None:
        """Give an order back; for *pause* seconds nobody gets another."""
        await self._read(lambda prefix: self._fail([f"{prefix}e:{entry.key}"], [token, _ms(pause)]))

    async def forget(
        self, names: Sequence[str], *, enough: float = 0, written: bool = False
    ) -> list[bool]:
        """Replace generations, except one that was replaced less than *enough* seconds ago.

        *written* also ends a write intent of each. Answers which were replaced.
        """

        def ask(prefix: str) -> Awaitable[Any]:
            keys = [f"{prefix}g:{name}" for name in names]
            keys += [f"{prefix}w:{name}" for name in names] if written else []
            return self._forget(keys, [_nonce(), GENERATION_MS, len(names), _ms(enough)])

        return [bool(each) for each in await self._call(ask)]

    async def intend(self, names: Sequence[str], lifetime: float) -> None:
        """Announce a write to Stripe that may take *lifetime* seconds."""
        await self._call(
            lambda prefix: self._intend(
                [f"{prefix}w:{name}" for name in names], [_nonce(), _ms(lifetime)]
            )
        )

    async def _values(self, names: Sequence[str]) -> dict[str, bytes | None]:
        values = await self._read(
            lambda prefix: self._reading.mget([f"{prefix}g:{name}" for name in names])
        )
        return dict(zip(names, values, strict=True))

    async def is_on(self, run_id: str) -> bool:
        """Whether these keys live on the server *run_id*; CacheGone while nobody answers."""
        await self._call(lambda _: self.redis.ping())
        return self._prefix == _prefix(run_id)

    async def _read(self, ask: Ask) -> Any:
        if time.monotonic() < self._leave_until:
            raise CacheGone
        try:
            return await self._call(ask)
        except CacheGone:
            self._leave_until = time.monotonic() + PAUSE_SECONDS
            raise

    async def _call(self, ask: Ask) -> Any:
        try:
            if self._prefix is None:
                await reply(self.redis.ping())
            for _ in range(2):
                prefix = self._prefix
                answer = await reply(ask(cast("str", prefix)))
                if prefix == self._prefix:
                    return answer
                # Another server has answered: what it says of the old one's keys proves nothing.
        except (RedisError, OSError) as error:
            log.warning("cache.gone", error=type(error).__name__)
            raise CacheGone from error
        raise CacheGone

    async def _connected(self, connection: AbstractConnection) -> None:
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


def _keys(prefix: str, entry: Entry) -> list[str]:
    return [f"{prefix}e:{entry.key}", *(f"{prefix}g:{name}" for name in entry.generations)]


def _nonce() -> str:
    return os.urandom(8).hex()


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
