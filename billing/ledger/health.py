"""What an acknowledgement of the ledger is worth, and what is wrong with its server."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from redis.exceptions import RedisError, ResponseError

from billing.errors import LedgerUnavailable
from billing.ledger.base import Door
from billing.redis_reply import reply

ASK_AGAIN_SECONDS = 60
# The ledger counts by its server's clock, the cron that ends a month looks at this machine's.
WARNED_SECONDS, REFUSED_SECONDS = 2, 60
MEMORY, FSYNCED, REPLICATED = "MEMORY", "FSYNCED", "REPLICATED"


@dataclass(frozen=True, slots=True)
class LedgerHealth:
    """*ok*: money may be trusted to this server. *problems* are sentences, each with its cure, *warnings* too.

    *durability* is MEMORY, FSYNCED or REPLICATED; *epoch* changes when the server was replaced,
    *server* is its run id.
    """

    ok: bool
    durability: str
    epoch: str
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    server: str = ""


class Health(Door):
    """Asks the server; assumes nothing for long."""

    _asked: tuple[str, str, float] | None = None

    async def durability(self) -> tuple[str, str]:
        """What an acknowledgement is worth now, and the ledger's epoch.

        The server is asked again after a minute, and when it was replaced.
        """
        now = asyncio.get_running_loop().time()
        if self._asked is None or self._asked[1] != self._server.epoch or self._asked[2] < now:
            found = await self.health()
            self._asked = (found.durability, self._server.epoch, now + ASK_AGAIN_SECONDS)
        return self._asked[0], self._server.epoch

    async def health(self) -> LedgerHealth:
        """A fresh look at the server; an unreachable one is a problem, not an error."""
        try:
            facts = await self._facts()
        except (RedisError, OSError, LedgerUnavailable) as error:
            sentence = f"The ledger's Redis cannot be reached ({type(error).__name__}); start it."
            return LedgerHealth(ok=False, durability=MEMORY, epoch="", problems=(sentence,))
        problems = tuple(_problems(facts))
        synced = facts.get("appendonly") == "yes" and facts.get("appendfsync") == "always"
        kept = REPLICATED if self._policy.replicas else FSYNCED
        return LedgerHealth(
            ok=not problems,
            durability=kept if synced else MEMORY,
            epoch=self._server.epoch,
            problems=problems,
            warnings=tuple(_warnings(facts)),
            server=facts.get("run_id", ""),
        )

    async def _facts(self) -> Mapping[str, str]:
        """Configuration and state by name, as text."""
        redis = self._server.redis
        info = await reply(redis.info())
        now_us = info.get("server_time_usec")  # not every managed server says
        clock = {"apart": abs(int(now_us) / 1e6 - self._wall()) if now_us else 0.0}
        try:
            config = await reply(redis.config_get("*"))
        except ResponseError:  # managed servers forbid CONFIG
            config = {"appendonly": "yes" if info["aof_enabled"] else "no"}
        return {str(name): str(value) for name, value in {**info, **config, **clock}.items()}


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
        _apart(facts): float(facts["apart"]) > REFUSED_SECONDS,
    }
    return [sentence for sentence, applies in wrong.items() if applies]


def _warnings(facts: Mapping[str, str]) -> list[str]:
    return [_apart(facts)] if WARNED_SECONDS < float(facts["apart"]) <= REFUSED_SECONDS else []


def _apart(facts: Mapping[str, str]) -> str:
    return (
        f"Its clock and this machine's are {float(facts['apart']):.0f} s apart; keep both by NTP."
    )
