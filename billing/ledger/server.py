"""The ledger's Redis server: runs the scripts, and detects that the server was replaced.

A script can only run on a server that this process has adopted. Scripts are called by hash alone. A
restarted or promoted server has none of them, and they are loaded only after the epoch of every
shard is established. A new connection also checks the server's identity, because a server can
return with its scripts still in memory after it was replaced.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from hashlib import blake2b, sha1
from importlib.resources import files
from typing import Any, TypeAlias

import structlog
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AskError, NoScriptError, RedisError, ResponseError

from billing.errors import LeaseLost, LedgerUnavailable
from billing.ledger import keys
from billing.ledger.policy import ReplicaAck
from billing.ledger.replication import append_wait, check_wait
from billing.redis_clients import UNREACHABLE, awaited, handshake, script_source

log = structlog.get_logger()

Client: TypeAlias = "Redis | RedisCluster"
Command: TypeAlias = "tuple[str | bytes | int, ...]"
SendCommands: TypeAlias = "Callable[[Sequence[Command]], Awaitable[list[Any]]]"
"""Sends commands and returns their answers; an AskError (MovedError too) for a command that another server must run."""
ScriptCall: TypeAlias = "tuple[str, keys.Key, tuple[str | bytes | int, ...]]"
"""A script's name, its key, and its arguments after time and nonce."""


NO_LEDGER = (
    "This server has no ledger: it is new, it was emptied, or it is another server. Restore the ledger's"
    " data, or begin a ledger with `python -m billing.ledger create`."
)
SCRIPTS = files("billing.ledger") / "scripts"
IDENTITY = re.compile(rb"run_id:(\w+)|master_replid:(\w+)")


class Server:
    """Runs scripts on *redis*. *clock* (ms) replaces the server's own time, for simulations.

    *epoch* changes whenever any part of the ledger was replaced or rewound.
    """

    def __init__(
        self, redis: Client, nonce: Callable[[], str], clock: Callable[[], int] | None = None
    ) -> None:
        self.redis = redis
        self.new_nonce = nonce
        self._clock = clock
        self.epoch = ""
        self._epochs: dict[int, bytes] = {}
        self._adopted: set[bytes] = set()
        options = (
            redis.connection_kwargs
            if isinstance(redis, RedisCluster)
            else redis.connection_pool.connection_kwargs
        )
        options["redis_connect_func"] = self._on_connect

    async def open(self, *, create: bool = True) -> None:
        """Adopt the server; LedgerUnavailable if it is unreachable or has another number of shards.

        A server without a ledger gets one, or without *create* is unavailable too.
        """
        try:
            if create:
                await awaited(self.redis.set(keys.shards(), keys.SHARDS, nx=True))
            shards = await awaited(self.redis.get(keys.shards()))
            if shards is None:
                raise LedgerUnavailable(NO_LEDGER)
            if int(shards) != keys.SHARDS:
                raise LedgerUnavailable(
                    f"This ledger was begun with {shards!r} shards and this program uses "
                    f"{keys.SHARDS}; run the program that it was begun with.",
                )
            if len(self._epochs) < keys.SHARDS:  # some cluster nodes have no connection yet
                await self._adopt_server(self._send_each)
        except UNREACHABLE as error:
            raise _unavailable(error) from error

    async def begin_epoch(self) -> None:
        """Begin a new epoch, for example after keys were restored or edited while the server ran.

        Every process then finds its scripts missing, adopts the server and learns the new epoch.
        """
        try:
            await self._adopt_server(self._send_each, always=True)
            await self._send("SCRIPT FLUSH")
        except UNREACHABLE as error:
            raise _unavailable(error) from error

    async def run_script(self, name: str, key: keys.Key, *args: str | bytes | int) -> Any:
        """Run script *name* for *key* and return its answer."""
        return (await self.run_scripts([(name, key, args)]))[0]

    async def run_scripts(
        self, calls: Sequence[ScriptCall], replica_ack: ReplicaAck | None = None
    ) -> list[Any]:
        """Run *calls* in one round trip; an error of one is raised after all have run.

        With *replica_ack*, the answers are withheld until that many replicas have confirmed the
        writes.
        """
        try:
            answers = await self._send_all(calls, replica_ack)
            missing = [at for at, answer in enumerate(answers) if _needs_adoption(answer)]
            if missing:
                await self._adopt_server(self._send_each)
                retried = await self._send_all([calls[at] for at in missing], replica_ack)
                for at, answer in zip(missing, retried, strict=True):
                    answers[at] = answer
        except UNREACHABLE as error:
            raise _unavailable(error) from error
        for answer in answers:
            if isinstance(answer, Exception):
                raise _translate(answer) from answer
        return answers

    async def execute(self, *command: str | bytes | int) -> Any:
        """Run one plain command and return its answer."""
        try:
            return await self._send(*command)
        except UNREACHABLE as error:
            raise _unavailable(error) from error

    async def execute_all(self, commands: Sequence[Command]) -> list[Any]:
        """Run plain *commands* in one round trip and return their answers."""
        try:
            async with self.redis.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                answers: list[Any] = await pipeline.execute()
        except UNREACHABLE as error:
            raise _unavailable(error) from error
        return answers

    async def _send_all(
        self, calls: Sequence[ScriptCall], replica_ack: ReplicaAck | None = None
    ) -> list[Any]:
        if len(calls) == 1 and not replica_ack:
            try:
                return [await self._send("EVALSHA", *self._evalsha_args(calls[0]))]
            except ResponseError as error:
                return [error]
        async with self.redis.pipeline(transaction=False) as pipeline:
            for call in calls:
                pipeline.execute_command("EVALSHA", *self._evalsha_args(call))
            if replica_ack:
                append_wait(pipeline, replica_ack)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return check_wait(answers, replica_ack) if replica_ack else answers

    def _evalsha_args(self, call: ScriptCall) -> tuple[str | bytes | int, ...]:
        name, key, args = call
        return (_script_sha(name), 1, key, self._now(), self.new_nonce(), *args)

    def _now(self) -> int | str:
        return "" if self._clock is None else self._clock()

    async def _send(self, *command: str | bytes | int) -> Any:
        return await awaited(self.redis.execute_command(*command))

    async def _send_each(self, commands: Sequence[Command]) -> list[Any]:
        return [await self._send(*command) for command in commands]

    async def _on_connect(self, connection: AbstractConnection) -> None:
        """Check the server's identity on each new connection, before its first use."""
        info = await handshake(connection, "server", "replication")
        identity = b" ".join(found.group() for found in IDENTITY.finditer(info))

        async def send(commands: Sequence[Command]) -> list[Any]:
            await connection.send_packed_command(connection.pack_commands(commands))
            return [await _read_response(connection) for _ in commands]

        if identity not in self._adopted:
            await self._adopt_server(send)
            self._adopted = {*self._adopted, identity}

    async def _adopt_server(self, send: SendCommands, *, always: bool = False) -> None:
        """Establish the epoch of each shard that *send* reaches, and only then load the scripts there."""
        known = dict(self._epochs)
        nonce, force = self.new_nonce(), "always" if always else ""
        await send([("SCRIPT LOAD", _script_text("epoch"))])
        script = (_script_sha("epoch"), 1)
        shards = range(keys.SHARDS)
        epochs = await send(
            [("EVALSHA", *script, keys.epoch(shard), self._now(), nonce, force) for shard in shards]
        )
        for shard, epoch in zip(shards, epochs, strict=True):
            if not isinstance(epoch, AskError):
                self._epochs[shard] = epoch
        await send([("SCRIPT LOAD", _script_text(name)) for name in _script_names()])
        if known != self._epochs:
            joined = b" ".join(self._epochs[shard] for shard in sorted(self._epochs))
            self.epoch = blake2b(joined, digest_size=6).hexdigest()
            log.info("ledger.epoch", epoch=self.epoch, first=not known)


async def _read_response(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except AskError as error:  # the shard is on, or being moved to, another server of the cluster
        return error


@cache
def _script_names() -> list[str]:
    names = {file.name.removesuffix(".lua") for file in SCRIPTS.iterdir()}
    return sorted(names - {"prelude", "epoch"})


@cache
def _script_text(name: str) -> str:
    names = (name,) if name == "epoch" else ("prelude", name)
    return script_source("billing.ledger", *names)


@cache
def _script_sha(name: str) -> str:
    # Redis identifies a script by its SHA-1; this is not a security feature.
    return sha1(_script_text(name).encode(), usedforsecurity=False).hexdigest()


def _needs_adoption(answer: Any) -> bool:
    return isinstance(answer, NoScriptError) or (
        isinstance(answer, ResponseError) and str(answer).startswith("NOEPOCH")
    )


def _translate(error: Exception) -> Exception:
    if isinstance(error, RedisError) and str(error).startswith("LEASELOST"):
        return LeaseLost(str(error))
    return _unavailable(error)


def _unavailable(error: Exception) -> LedgerUnavailable:
    # The text may contain addresses, and the message may reach a customer.
    log.error("ledger.unavailable", error=type(error).__name__, reason=str(error))
    return LedgerUnavailable(
        "The ledger cannot be reached or refuses to write just now; try again."
    )
