"""Rate limit by query cost: token buckets in Redis, shared by the gateway's processes.

Each person has a bucket, and so has each group of people, a larger one: many people, or many tokens of one,
get no more than that together. While Redis does not answer, every bucket counts as full.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from billing.cache.batcher import Batcher
from billing.redis_clients import load_script
from gateway.auth.caller import Caller
from gateway.graphql.admission.best_effort_redis import BestEffortRedis

GROUP_FACTOR = 3
"""Size of a group's bucket, in buckets of a person."""


@dataclass(frozen=True, slots=True)
class ThrottleStatus:
    """A caller's bucket after a charge; *retry_after* seconds when the charge was refused, else 0."""

    maximum: int
    available: int
    restore_rate: int
    retry_after: int = 0


class _Charge(NamedTuple):
    """A *cost* for a person and a group; if *unconditional*, whatever is available."""

    person: str
    group: str
    cost: int
    unconditional: bool


class CostLimiter:
    """Token buckets of query cost: a person's has this *capacity* and regains *rate* a second."""

    def __init__(
        self, redis: BestEffortRedis, *, capacity: int = 20_000, rate: int = 1_000
    ) -> None:
        self._redis = redis
        self._script = load_script(redis.client, "gateway.graphql.admission", "charge")
        self._batcher: Batcher[_Charge, tuple[int, int]] = Batcher(self._charge)
        self.capacity = capacity
        self._rate = rate

    async def charge(self, caller: Caller, cost: int) -> ThrottleStatus:
        """Take *cost* from the buckets of *caller*, if both cover it; one command per event loop iteration."""
        charge = _Charge(caller.name, caller.group or caller.name, cost, unconditional=False)
        available, wait_ms = await self._batcher.submit(charge)
        return ThrottleStatus(self.capacity, available, self._rate, ceil(wait_ms / 1000))

    def settle(self, caller: Caller, difference: int) -> None:
        """Charge *difference*, or refund a negative one, soon and in any case: the work has been done."""
        if difference:
            group = caller.group or caller.name
            self._batcher.submit(_Charge(caller.name, group, difference, unconditional=True))

    async def _charge(self, charges: Sequence[_Charge]) -> Sequence[tuple[int, int]]:
        keys = [
            key
            for charge in charges
            for key in (f"gw:allowance:{charge.person}", f"gw:allowance:group:{charge.group}")
        ]
        of_person = (self.capacity, self._rate)
        of_group = [GROUP_FACTOR * amount for amount in of_person]
        amounts = [
            number for charge in charges for number in (charge.cost, int(charge.unconditional))
        ]
        replies: Sequence[tuple[int, int]] | None = await self._redis.execute(
            lambda: self._script(keys, [*of_person, *of_group, *amounts])
        )
        return replies or [(self.capacity, 0)] * len(charges)
