"""The limiter that all processes share: two scripts in Redis, one round trip each.

``scripts/admit.lua`` acquires a permit or returns the time until the next attempt; ``scripts/settle.lua``
releases it and adapts the limits to the call's outcome.
"""

import random
import secrets
from collections.abc import Mapping

import orjson
from redis.asyncio import Redis

from billing.budget.permit import Lane, Permit
from billing.budget.policy import BudgetPolicy, RateLimit
from billing.budget.state import (
    ACCOUNT,
    CALLER,
    ENDPOINTS,
    READS,
    WAITING,
    endpoint_key,
    object_key,
    slots_key,
)
from billing.redis_clients import awaited, load_script

FLOOR_SHARE = 0.05  # of a rate, guaranteed to each lane
CALLER_SHARE = 0.1  # of an endpoint's rate; a caller gets more only of what nobody else wants
CALLER_BURST_MS = 5_000  # in this time's share a caller may call at once
POLL_MS = 25  # while another call holds a slot or an object; its end is unknown
BREAKER_PAUSE_MS = 30_000

BURST_SHARE: Mapping[Lane, float] = {
    Lane.CUSTOMER: 1.0,
    Lane.SUPPORT: 0.8,
    Lane.CLOSE: 0.6,
    Lane.INTERVAL: 0.3,
    Lane.BACKGROUND: 0.0,
}
"""Share of the burst that a lane may use; a lower lane is exhausted before a higher one."""

READ_RATION_SHARE: Mapping[Lane, float] = {Lane.INTERVAL: 1.0, Lane.BACKGROUND: 0.8}
"""Share of the read ration at which a lane's reads stop; the other lanes' reads are not rationed."""


class RedisLimiter:
    """The shared limits in *redis*, as one process uses them."""

    def __init__(self, redis: Redis, policy: BudgetPolicy) -> None:
        self._policy = policy
        self._waiter = secrets.token_hex(4)
        self._acquire_script = load_script(redis, "billing.budget", "admit")
        self._release_script = load_script(redis, "billing.budget", "settle")

    async def acquire(self, permit: Permit, waiting: int) -> tuple[float, str]:
        """Seconds to wait and the reason, or (0, ""); *waiting* calls of the lane wait in this process."""
        args = [orjson.dumps(self._acquire_args(permit, waiting))]
        reply: list[bytes] = await awaited(self._acquire_script(keys=_keys(permit), args=args))
        return float(reply[0]) / 1000, reply[1].decode()

    async def release(self, permit: Permit) -> None:
        """Release *permit*, and report its outcome."""
        args = {
            "permit": permit.id,
            "outcome": permit.outcome,
            "account": self._policy.account.rate,
            "endpoint": self._policy.rate_limit(permit.call.endpoint).rate,
            "slots": permit.call.is_list,
            "object": permit.call.locked_object or False,
            "jitter": random.random(),  # noqa: S311 spreads retries, guards nothing
            "pause": BREAKER_PAUSE_MS,
        }
        await awaited(self._release_script(keys=_keys(permit)[:4], args=[orjson.dumps(args)]))

    def _acquire_args(self, permit: Permit, waiting: int) -> dict[str, object]:
        policy, call, lane = self._policy, permit.call, permit.lane
        return {
            "permit": permit.id,
            "name": call.endpoint,
            "lane": lane,
            "probes": lane is Lane.CUSTOMER,
            "reach": BURST_SHARE[lane],
            "floor": FLOOR_SHARE,
            "account": _numbers(policy.account),
            "endpoint": _numbers(policy.rate_limit(call.endpoint)),
            "slots": self._slots(lane) if call.is_list else False,
            "object": call.locked_object or False,
            "read": not call.is_write,
            "reads": int(policy.read_ration * READ_RATION_SHARE[lane])
            if lane in READ_RATION_SHARE
            else False,
            "caller": permit.caller
            and {
                "share": CALLER_SHARE,
                "burst": CALLER_BURST_MS,
                "reads": policy.caller_reads,
            },
            "waiter": f"{self._waiter}:{lane}",
            "waiting": waiting,
            "lease": policy.lease_ms,
            "pause": BREAKER_PAUSE_MS,
            "poll": POLL_MS,
        }

    def _slots(self, lane: Lane) -> int:
        """Number of slots for lists; the last is reserved for customers, unless it is the only one."""
        lists = self._policy.list_slots
        return lists if lane is Lane.CUSTOMER else max(1, lists - 1)


def _keys(permit: Permit) -> list[str]:
    name = permit.call.endpoint
    lock = object_key(permit.call.locked_object)
    shared = [ACCOUNT, endpoint_key(name), slots_key(name), lock, READS, WAITING, ENDPOINTS]
    return [*shared, CALLER + permit.caller]


def _numbers(limit: RateLimit) -> dict[str, float]:
    return {"rate": limit.rate, "burst": limit.burst}
