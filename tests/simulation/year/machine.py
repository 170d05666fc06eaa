"""The ledger's server: keys expire, it is backed up, and it comes back old, empty, or as another one."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from billing.ledger import keys
from billing.ledger.server import _script_sha
from tests.simulation.wire import DAY_MS, HOUR_MS
from tests.simulation.year.books import Page

if TYPE_CHECKING:
    from tests.simulation.year.world import YearWorld

EXPIRE = """
for _, key in ipairs(redis.call('KEYS', '*')) do
    local left = redis.call('PTTL', key)
    if left > 0 then
        redis.call('PEXPIRE', key, left - ARGV[1])
    end
end
"""
DUMP = """
local all = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
    all[#all + 1] = { key, redis.call('PTTL', key), redis.call('DUMP', key) }
end
return all
"""
BACKUPS = 12


class Loss(StrEnum):
    """How the ledger comes back."""

    RESTART = "restarted"
    HOUR = "an hour old"
    DAY = "a day old"
    MONTH = "a month old"
    EMPTY = "empty"
    OTHER = "another server for a while"


AGES = {Loss.HOUR: HOUR_MS, Loss.DAY: DAY_MS, Loss.MONTH: 30 * DAY_MS}


@dataclass(frozen=True)
class Backup:
    """All keys at *at_ms*, each with the time (ms) at which it expires, and what the books had."""

    at_ms: int
    content: list[tuple[bytes, int | None, bytes]]
    page: Page


class LedgerServer:
    """The server of one schedule; *shards* are those that have customers."""

    def __init__(self, world: "YearWorld", redis: Redis, shards: tuple[int, ...]) -> None:
        self._world = world
        self._redis = redis
        self.shards = shards
        self._backups: list[Backup] = []
        self._elsewhere: Backup | None = None
        self._unexpired_ms = 0

    async def pass_time(self, ms: int) -> None:
        """Expire keys as if *ms* had passed: the server's own clock stands still."""
        self._unexpired_ms += ms
        if self._unexpired_ms > HOUR_MS:
            await self._redis.eval(EXPIRE, 0, str(self._unexpired_ms))  # type: ignore[misc]
            self._unexpired_ms = 0

    async def back_up(self) -> None:
        """Keep a copy, and of the older ones those that are spread best."""
        self._backups.append(await self._copy())
        if len(self._backups) > BACKUPS:
            del self._backups[self._world.rng.randrange(1, len(self._backups) - 1)]

    async def lose(self, loss: Loss) -> None:
        """Come back as *loss* says; processes notice, and producers are told by the epoch."""
        world = self._world
        world.note(f"ledger comes back {loss}")
        world.counts[f"ledger: {loss}"] += 1
        if loss is Loss.RESTART:
            await self._new_epoch()
        elif loss is Loss.OTHER:
            self._elsewhere = await self._copy()
            await self._replace(Backup(world.now, [], Page()))
        elif loss is Loss.EMPTY:
            await self._replace(Backup(world.now, [], Page()))
        else:
            limit = world.now - AGES[loss] // 2
            old = [backup for backup in self._backups if backup.at_ms <= limit]
            target = world.now - AGES[loss]
            if old:
                await self._replace(min(old, key=lambda backup: abs(backup.at_ms - target)))

    async def come_back(self) -> None:
        """Point at the first server again; as the operator should, begin a new epoch."""
        if self._elsewhere is not None:
            self._world.note("ledger: back to the first server")
            backup, self._elsewhere = self._elsewhere, None
            await self._replace(backup)

    @property
    def is_elsewhere(self) -> bool:
        """True while processes use another server."""
        return self._elsewhere is not None

    async def _copy(self) -> Backup:
        found = await self._redis.eval(DUMP, 0)  # type: ignore[misc]
        now = self._world.now
        content = [(key, now + ttl if ttl > 0 else None, dump) for key, ttl, dump in found]
        return Backup(now, content, self._world.books.page.copied())

    async def _replace(self, backup: Backup) -> None:
        world = self._world
        world.books.page = backup.page.copied()
        world.begin_loss()
        await self._redis.flushdb()
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key, expires_ms, dump in backup.content:
                left = 0 if expires_ms is None else expires_ms - world.now
                if left >= 0:
                    pipeline.restore(key, max(left, 1) if expires_ms else 0, dump)
            await pipeline.execute()
        await self._redis.set(keys.shards(), keys.SHARDS)
        await self._new_epoch()

    async def _new_epoch(self) -> None:
        self._world.oracle.begin_epoch()
        for shard in self.shards:
            nonce = self._world.nonce()
            script = (_script_sha("epoch"), 1, keys.epoch(shard), self._world.now, nonce, "always")
            await self._redis.execute_command("EVALSHA", *script)  # type: ignore[no-untyped-call]
        self._world.counts["rewinds"] += 1
