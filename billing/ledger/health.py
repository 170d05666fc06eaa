"""Durability of the ledger's acknowledgements, and the problems of its server."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from redis.asyncio import RedisCluster
from redis.exceptions import ResponseError

from billing.errors import LedgerUnavailable
from billing.ledger import keys
from billing.ledger.base import LedgerPart
from billing.ledger.policy import LedgerPolicy
from billing.ledger.server import NO_LEDGER, Client, Server
from billing.redis_clients import UNREACHABLE, awaited

RECHECK_SECONDS = 60
# The ledger dates usage by its server's clock; the cron that closes a month uses this machine's.
CLOCK_SKEW_WARNING_SECONDS, CLOCK_SKEW_LIMIT_SECONDS = 2, 60
MEMORY_WARNING_SHARE = 0.9  # of maxmemory
MEMORY, FSYNCED, REPLICATED = "MEMORY", "FSYNCED", "REPLICATED"


@dataclass(frozen=True, slots=True)
class LedgerHealth:
    """*ok*: the server may be trusted with money. *problems* and *warnings* are sentences with a remedy.

    *durability* is MEMORY, FSYNCED or REPLICATED. *epoch* changes when the server is replaced.
    *server* is its run id.
    """

    ok: bool
    durability: str
    epoch: str
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    server: str = ""


class Health(LedgerPart):
    """Checks the durability of the ledger's server, or of each of a cluster's; cached for a minute."""

    def __init__(
        self, server: Server, policy: LedgerPolicy, wall_clock: Callable[[], float]
    ) -> None:
        super().__init__(server, policy)
        self._wall_clock = wall_clock
        self._cached: tuple[str, str, float] | None = None

    async def durability(self) -> tuple[str, str]:
        """Return the durability of an acknowledgement now, and the ledger's epoch.

        The server is checked again after a minute, and whenever it is replaced.
        """
        now = asyncio.get_running_loop().time()
        if self._cached is None or self._cached[1] != self._server.epoch or self._cached[2] < now:
            health = await self.check()
            self._cached = (health.durability, self._server.epoch, now + RECHECK_SECONDS)
        return self._cached[0], self._server.epoch

    async def check(self) -> LedgerHealth:
        """Check the server now; an unreachable server is reported as a problem, not raised."""
        try:
            servers = await self._server_facts()
            found = await self._server.execute("EXISTS", keys.shards())
        except (*UNREACHABLE, LedgerUnavailable) as error:
            sentence = f"The ledger's Redis cannot be reached ({type(error).__name__}); start it."
            return LedgerHealth(ok=False, durability=MEMORY, epoch="", problems=(sentence,))
        problems = (*_named(servers, _problems), *([] if found else [NO_LEDGER]))
        synced = all(
            facts.get("appendonly") == "yes" and facts.get("appendfsync") == "always"
            for facts in servers.values()
        )
        durable = REPLICATED if self._policy.replicas else FSYNCED
        return LedgerHealth(
            ok=not problems,
            durability=durable if synced else MEMORY,
            epoch=self._server.epoch,
            problems=problems,
            warnings=_named(servers, partial(_warnings, replicas=self._policy.replicas)),
            server=next(iter(servers.values())).get("run_id", ""),
        )

    async def _server_facts(self) -> Mapping[str, Mapping[str, str]]:
        """Return the facts of each server by its address; of a cluster, those of every primary."""
        redis = self._server.redis
        if not isinstance(redis, RedisCluster):
            return {"": await self._facts(redis)}
        await redis.initialize()
        return {
            node.name: await self._facts(redis, target_nodes=node) for node in redis.get_primaries()
        }

    async def _facts(self, redis: Client, **target: Any) -> Mapping[str, str]:
        """Return a server's configuration and state by name, as text."""
        info = await awaited(redis.info(**target))
        now_us = info.get("server_time_usec")  # absent on some managed servers
        clock = {"clock_skew": abs(int(now_us) / 1e6 - self._wall_clock()) if now_us else 0.0}
        try:
            config = await awaited(redis.config_get("*", **target))
        except ResponseError:  # managed servers forbid CONFIG
            config = {"appendonly": "yes" if info["aof_enabled"] else "no"}
        return {str(name): str(value) for name, value in {**info, **config, **clock}.items()}


def _named(
    servers: Mapping[str, Mapping[str, str]],
    sentences_about: Callable[[Mapping[str, str]], Iterable[str]],
) -> tuple[str, ...]:
    """Return the sentences about all *servers*, each after its server's address if it has one."""
    return tuple(
        f"{address}: {sentence}" if address else sentence
        for address, facts in servers.items()
        for sentence in sentences_about(facts)
    )


def _problems(facts: Mapping[str, str]) -> list[str]:
    policy = facts.get("maxmemory-policy", facts["maxmemory_policy"])
    wrong = {
        "It is a replica; point BILLING_REDIS_URL at the primary.": facts["role"] != "master",
        "It keeps no append-only file; set appendonly yes.": facts["appendonly"] != "yes",
        "It acknowledges before the disk has it; set appendfsync always.": (
            facts.get("appendfsync", "always") != "always"
        ),
        "It does not say when it writes to disk (CONFIG is forbidden); what an acknowledgement is "
        "worth cannot be verified.": "appendfsync" not in facts,
        "It stops syncing while it rewrites the file; set no-appendfsync-on-rewrite no.": (
            facts.get("no-appendfsync-on-rewrite", "no") != "no"
        ),
        "It may evict keys when memory is full; set maxmemory-policy noeviction.": (
            policy != "noeviction"
        ),
        "Its last write to the append-only file failed; look at its disk.": (
            facts.get("aof_last_write_status", "ok") != "ok"
        ),
        "It is still loading its data; wait.": facts["loading"] != "0",
        _clock_skew_message(facts): float(facts["clock_skew"]) > CLOCK_SKEW_LIMIT_SECONDS,
    }
    return [sentence for sentence, applies in wrong.items() if applies]


def _warnings(facts: Mapping[str, str], *, replicas: int) -> list[str]:
    connected = int(facts.get("connected_slaves", replicas))
    wrong = {
        _clock_skew_message(facts): (
            CLOCK_SKEW_WARNING_SECONDS < float(facts["clock_skew"]) <= CLOCK_SKEW_LIMIT_SECONDS
        ),
        f"Replicas connected to it: {connected}, fewer than BILLING_LEDGER_REPLICAS ({replicas}), so it refuses all "
        "usage; start one, and better one more than that, because a failover takes one away.": connected
        < replicas,
        "Its memory is almost full, and at maxmemory it refuses all usage; give it more.": (
            _is_almost_full(facts)
        ),
    }
    return [sentence for sentence, applies in wrong.items() if applies]


def _is_almost_full(facts: Mapping[str, str]) -> bool:
    """Return True if a server that evicts nothing refuses every write, or will soon."""
    most = int(facts.get("maxmemory", 0))  # 0: no limit
    return most > 0 and int(facts["used_memory"]) > MEMORY_WARNING_SHARE * most


def _clock_skew_message(facts: Mapping[str, str]) -> str:
    return f"Its clock and this machine's are {float(facts['clock_skew']):.0f} s apart; keep both by NTP."
