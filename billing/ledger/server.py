"""The ledger's Redis: runs its scripts, and notices when the server is not the one it was.

A script can only run on a server that somebody has looked at. Scripts are called by their hash alone,
a restarted or promoted server knows none of them, and they are loaded only after every shard's epoch
has been settled. A new connection checks the server's identity as well, for the server that comes
back after having been replaced, its scripts still in memory.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from hashlib import blake2b, sha1
from importlib.resources import files
from typing import Any, NamedTuple, TypeAlias

import structlog
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import MovedError, NoScriptError, RedisError, ResponseError

from billing.errors import LeaseLost, LedgerUnavailable
from billing.ledger import keys
from billing.redis_reply import reply

log = structlog.get_logger()

Client: TypeAlias = "Redis | RedisCluster"
Command: TypeAlias = "tuple[str | bytes | int, ...]"
Send: TypeAlias = "Callable[[Sequence[Command]], Awaitable[list[Any]]]"
"""Sends commands, and gives their answers; one on a server that refers it elsewhere is a MovedError."""
Call: TypeAlias = "tuple[str, keys.Key, tuple[str | bytes | int, ...]]"
"""A script's name, the key it is about, its arguments after time and nonce."""


class Copies(NamedTuple):
    """How many replicas must have a write before it is acknowledged, and how long that may take."""

    replicas: int
    wait_ms: int


SCRIPTS = files("billing.ledger") / "scripts"
UNREACHABLE = (RedisError, OSError)
IDENTITY = re.compile(rb"run_id:(\w+)|master_replid:(\w+)")


class Server:
    """Runs scripts on *redis*; *clock* (ms) stands in for the server's own time where one is given.

    *epoch* changes whenever any part of the ledger was replaced or rewound.
    """

    def __init__(
        self,
        redis: Client,
        nonce: Callable[[], str],
        clock: Callable[[], int] | None = None,
    ) -> None:
        self.redis = redis
        self._nonce = nonce
        self._clock = clock
        self.epoch = ""
        self._epochs: dict[int, bytes] = {}
        self._met: set[bytes] = set()
        options = (
            redis.connection_kwargs
            if isinstance(redis, RedisCluster)
            else redis.connection_pool.connection_kwargs
        )
        options["redis_connect_func"] = self._greet

    async def open(self) -> None:
        """Look at the server; LedgerUnavailable when it cannot be reached or was sharded otherwise."""
        try:
            await reply(self.redis.set(keys.shards(), keys.SHARDS, nx=True))
            begun_with = await reply(self.redis.get(keys.shards()))
            if int(begun_with or 0) != keys.SHARDS:
                raise LedgerUnavailable(
                    f"This ledger was begun with {begun_with!r} shards and this program uses "
                    f"{keys.SHARDS}; run the program that it was begun with.",
                )
            if (
                len(self._epochs) < keys.SHARDS
            ):  # a cluster has servers that this has not connected to
                await self._meet(self._send_each)
        except UNREACHABLE as error:
            raise _unavailable(error) from error

    async def begin_epoch(self) -> None:
        """Distrust what was remembered: after keys were restored or edited while the server ran, say.

        Every process finds its scripts gone, looks at the server before it goes on, and learns of it.
        """
        try:
            await self._meet(self._send_each, always=True)
            await self._send("SCRIPT FLUSH")
        except UNREACHABLE as error:
            raise _unavailable(error) from error

    async def run(self, name: str, key: keys.Key, *args: str | bytes | int) -> Any:
        """What script *name* answers for *key*."""
        return (await self.run_all([(name, key, args)]))[0]

    async def run_all(self, calls: Sequence[Call], copies: Copies | None = None) -> list[Any]:
        """What each of *calls* answers, sent together; an error of one is raised when all have run.

        With *copies*, the answers are held back until so many replicas have confirmed the writes.
        """
        try:
            answers = await self._send_all(calls, copies)
            again = [at for at, answer in enumerate(answers) if _is_new_here(answer)]
            if again:
                await self._meet(self._send_each)
                anew = await self._send_all([calls[at] for at in again], copies)
                for at, answer in zip(again, anew, strict=True):
                    answers[at] = answer
        except UNREACHABLE as error:
            raise _unavailable(error) from error
        for answer in answers:
            if isinstance(answer, Exception):
                raise _translated(answer) from answer
        return answers

    async def ask(self, *command: str | bytes | int) -> Any:
        """The answer of one plain command."""
        try:
            return await self._send(*command)
        except UNREACHABLE as error:
            raise _unavailable(error) from error

    async def ask_all(self, commands: Sequence[Command]) -> list[Any]:
        """The answers of plain *commands*, sent together."""
        try:
            async with self.redis.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                answers: list[Any] = await pipeline.execute()
        except UNREACHABLE as error:
            raise _unavailable(error) from error
        return answers

    async def _send_all(self, calls: Sequence[Call], copies: Copies | None = None) -> list[Any]:
        if len(calls) == 1 and not copies:
            try:
                return [await self._send("EVALSHA", *self._arguments(calls[0]))]
            except ResponseError as error:
                return [error]
        async with self.redis.pipeline(transaction=False) as pipeline:
            for call in calls:
                pipeline.execute_command("EVALSHA", *self._arguments(call))
            if copies:
                # WAIT speaks of the writes of its own connection, so it rides in the same pipeline.
                pipeline.execute_command("WAIT", copies.replicas, copies.wait_ms)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        if copies:
            _must_be_copied(answers.pop(), copies)
        return answers

    def _arguments(self, call: Call) -> tuple[str | bytes | int, ...]:
        name, key, args = call
        return (_digest(name), 1, key, self._now(), self._nonce(), *args)

    def _now(self) -> int | str:
        return "" if self._clock is None else self._clock()

    async def _send(self, *command: str | bytes | int) -> Any:
        return await reply(self.redis.execute_command(*command))

    async def _send_each(self, commands: Sequence[Command]) -> list[Any]:
        return [await self._send(*command) for command in commands]

    async def _greet(self, connection: AbstractConnection) -> None:
        """On each new connection, before anybody uses it."""
        await connection.on_connect()

        async def send(commands: Sequence[Command]) -> list[Any]:
            await connection.send_packed_command(connection.pack_commands(commands))
            return [await _answer(connection) for _ in commands]

        facts = b"".join(await send([("INFO", "server"), ("INFO", "replication")]))
        identity = b" ".join(found.group() for found in IDENTITY.finditer(facts))
        if identity not in self._met:
            await self._meet(send)
            self._met = {*self._met, identity}

    async def _meet(self, send: Send, *, always: bool = False) -> None:
        """Settle the epoch of each shard that *send* reaches, and only then load the scripts there."""
        known = dict(self._epochs)
        nonce, force = self._nonce(), "always" if always else ""
        await send([("SCRIPT LOAD", _text("epoch"))])
        settle = (_digest("epoch"), 1)
        shards = range(keys.SHARDS)
        epochs = await send(
            [("EVALSHA", *settle, keys.epoch(shard), self._now(), nonce, force) for shard in shards]
        )
        for shard, epoch in zip(shards, epochs, strict=True):
            if not isinstance(epoch, MovedError):
                self._epochs[shard] = epoch
        await send([("SCRIPT LOAD", _text(name)) for name in _names()])
        if known != self._epochs:
            all_of_them = b" ".join(self._epochs[shard] for shard in sorted(self._epochs))
            self.epoch = blake2b(all_of_them, digest_size=6).hexdigest()
            log.info("ledger.epoch", epoch=self.epoch, first=not known)


async def _answer(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except MovedError as elsewhere:  # the shard is on another server of the cluster
        return elsewhere


@cache
def _names() -> tuple[str, ...]:
    parts = {file.name.removesuffix(".lua") for file in SCRIPTS.iterdir()}
    return tuple(sorted(parts - {"prelude", "epoch"}))


@cache
def _text(name: str) -> str:
    text = (SCRIPTS / f"{name}.lua").read_text()
    return text if name == "epoch" else (SCRIPTS / "prelude.lua").read_text() + text


@cache
def _digest(name: str) -> str:
    # Redis names a script by its SHA-1; nothing secret hangs on it.
    return sha1(_text(name).encode(), usedforsecurity=False).hexdigest()


def _is_new_here(answer: Any) -> bool:
    return isinstance(answer, NoScriptError) or (
        isinstance(answer, ResponseError) and str(answer).startswith("NOEPOCH")
    )


def _must_be_copied(answer: Any, copies: Copies) -> None:
    """LedgerUnavailable unless *answer*, which WAIT gave, is enough replicas: it may be a refusal as well."""
    if isinstance(answer, Exception):
        raise _unavailable(answer) from answer
    if answer < copies.replicas:
        raise LedgerUnavailable(
            "It may be counted, but too few replicas confirmed it; send it again."
        )


def _translated(error: Exception) -> Exception:
    if isinstance(error, RedisError) and str(error).startswith("LEASELOST"):
        return LeaseLost(str(error))
    return _unavailable(error)


def _unavailable(error: Exception) -> LedgerUnavailable:
    # The text may name addresses; the message may reach a customer.
    log.error("ledger.unavailable", error=type(error).__name__, reason=str(error))
    return LedgerUnavailable(
        "The ledger cannot be reached or refuses to write just now; try again."
    )
