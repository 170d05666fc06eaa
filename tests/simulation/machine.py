"""The machine that Redis runs on; it may be restored from an old backup."""

from typing import TYPE_CHECKING

from redis.asyncio import Redis

from billing.ledger import keys
from billing.ledger.server import _script_sha
from billing.redis_clients import awaited
from tests.simulation.people import CUSTOMERS

if TYPE_CHECKING:
    from tests.simulation.world import World

SHARDS = tuple(sorted({keys.shard_of(customer) for customer in CUSTOMERS}))


class Machine:
    """Backs up and restores the ledger."""

    def __init__(self, world: "World", redis: Redis) -> None:
        self._world = world
        self._redis = redis
        self._backup: dict[bytes, bytes] | None = None

    async def back_up(self) -> None:
        """Copy everything."""
        found = [key async for key in self._redis.scan_iter(count=1000)]
        self._backup = {key: await awaited(self._redis.dump(key)) for key in sorted(found)}

    async def rewind(self) -> None:
        """Restore the backup; producers replay their usage."""
        if self._backup is None:
            return
        self._world.counts["rewinds"] += 1
        self._world.oracle.rewound = True
        self._world.oracle.arrived_late.clear()
        await self._redis.flushdb()
        for key, value in self._backup.items():
            await self._redis.restore(key, 0, value)
        await self.new_epoch()
        replayed = list(self._world.reported)
        self._world.rng.shuffle(replayed)
        for at in range(0, len(replayed), 10):
            await self._world.report(replayed[at : at + 10])

    async def new_epoch(self) -> None:
        """Begin a new epoch, as the ledger does when it connects to another server."""
        for shard in SHARDS:
            script = (
                _script_sha("epoch"),
                1,
                keys.epoch(shard),
                self._world.now,
                self._world.nonce(),
                "always",
            )
            await self._redis.execute_command("EVALSHA", *script)  # type: ignore[no-untyped-call]
