"""The allowance that all processes share: two scripts in Redis, one round trip each.

``scripts/admit.lua`` admits a call or says how long until it may ask again; ``scripts/settle.lua``
gives back what it held and learns from how it ended.
"""

import random
import secrets
from collections.abc import Mapping
from pathlib import Path

import orjson
from redis.asyncio import Redis

from billing.budget.permit import Lane, Passage
from billing.budget.policy import Allowance, BudgetPolicy
from billing.budget.state import (
    ACCOUNT,
    ENDPOINTS,
    READS,
    WAITING,
    endpoint_key,
    object_key,
    slots_key,
)
from billing.redis_reply import reply

SCRIPTS = Path(__file__).with_name("scripts")
FLOOR = 0.05  # of a rate, for each lane, whatever happens in the lanes above
POLL_MS = 25  # while another call holds a slot or an object: its end cannot be computed
BREAKER_PAUSE_MS = 30_000

REACH: Mapping[Lane, float] = {
    Lane.CUSTOMER: 1.0,
    Lane.SUPPORT: 0.8,
    Lane.CLOSE: 0.6,
    Lane.INTERVAL: 0.3,
    Lane.BACKGROUND: 0.0,
}
"""How far into the burst a lane may spend; a lane below runs dry before the one above does."""

READ_SHARE: Mapping[Lane, float] = {Lane.INTERVAL: 1.0, Lane.BACKGROUND: 0.8}
"""At which part of the read ration a lane's reads stop; those of the other lanes never do."""


class Shared:
    """The allowance in *redis*, for one process."""

    def __init__(self, redis: Redis, policy: BudgetPolicy) -> None:
        self._policy = policy
        self._waiter = secrets.token_hex(4)
        self._admit = redis.register_script((SCRIPTS / "admit.lua").read_text())
        self._settle = redis.register_script((SCRIPTS / "settle.lua").read_text())

    async def ask(self, passage: Passage, waiting: int) -> tuple[float, str]:
        """Seconds to wait and why; (0, "") admits. *waiting* calls of its lane wait in this process."""
        question = orjson.dumps(self._question(passage, waiting))
        answer: list[bytes] = await reply(self._admit(keys=_keys(passage), args=[question]))
        return float(answer[0]) / 1000, answer[1].decode()

    async def settle(self, passage: Passage) -> None:
        """*passage* is over."""
        told = {
            "permit": passage.permit,
            "outcome": passage.outcome,
            "account": self._policy.account.rate,
            "endpoint": self._policy.allowance(passage.call.endpoint).rate,
            "slots": passage.call.lists,
            "object": passage.call.object or False,
            "jitter": random.random(),  # noqa: S311 spreads retries, guards nothing
            "pause": BREAKER_PAUSE_MS,
        }
        await reply(self._settle(keys=_keys(passage)[:4], args=[orjson.dumps(told)]))

    def _question(self, passage: Passage, waiting: int) -> dict[str, object]:
        policy, call, lane = self._policy, passage.call, passage.lane
        return {
            "permit": passage.permit,
            "name": call.endpoint,
            "lane": lane,
            "probes": lane is Lane.CUSTOMER,
            "reach": REACH[lane],
            "floor": FLOOR,
            "account": _numbers(policy.account),
            "endpoint": _numbers(policy.allowance(call.endpoint)),
            "slots": self._slots(lane) if call.lists else False,
            "object": call.object or False,
            "read": not call.write,
            "reads": int(policy.reads * READ_SHARE[lane]) if lane in READ_SHARE else False,
            "waiter": f"{self._waiter}:{lane}",
            "waiting": waiting,
            "lease": policy.lease_ms,
            "pause": BREAKER_PAUSE_MS,
            "poll": POLL_MS,
        }

    def _slots(self, lane: Lane) -> int:
        """How many lists may run; the last slot is left to customers, unless it is the only one."""
        lists = self._policy.lists
        return lists if lane is Lane.CUSTOMER else max(1, lists - 1)


def _keys(passage: Passage) -> list[str]:
    name = passage.call.endpoint
    lock = object_key(passage.call.object)
    return [ACCOUNT, endpoint_key(name), slots_key(name), lock, READS, WAITING, ENDPOINTS]


def _numbers(allowance: Allowance) -> dict[str, float]:
    return {"rate": allowance.rate, "burst": allowance.burst}
