"""The machine that Redis runs on; it may be restored from an old backup."""

from collections.abc import Mapping
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
        if self._backup is not None:
            await self.restore()
            await self.replay()

    async def restore(self) -> None:
        """Restore the backup; nobody replays anything yet."""
        await self._replace(self._backup or {})

    async def empty(self) -> None:
        """Replace the server by an empty one; nobody replays anything yet."""
        await self._replace({})
        for customer in CUSTOMERS:
            await self._world.ledger.usage.register_customer(customer, "usd")

    async def _replace(self, data: Mapping[bytes, bytes]) -> None:
        self._world.counts["rewinds"] += 1
        self._world.oracle.rewound = True
        self._world.oracle.arrived_late.clear()
        await self._redis.flushdb()
        for key, value in data.items():
            await self._redis.restore(key, 0, value)
        await self.new_epoch()

    async def replay(self) -> None:
        """Send all usage again, as producers do."""
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
