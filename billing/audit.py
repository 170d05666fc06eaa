"""What Support did to a customer's billing, when and why; it is never rewritten and never expires."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from redis.asyncio import Redis, RedisCluster

from billing import keys
from billing.pages import Page
from billing.redis_reply import reply
from billing.usage import CustomerId

ENTRY_ID = re.compile(r"\d{1,20}-\d{1,20}", re.ASCII)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act: *by* is the token subject, *action* the mutation's name, *detail* JSON of before and after."""

    id: str
    at_ms: int
    by: str
    action: str
    reason: str | None
    detail: str | None


class AuditLog:
    """One stream a customer, in the ledger's Redis."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis = redis

    async def append(
        self,
        customer: CustomerId,
        by: str,
        action: str,
        reason: str | None,
        detail: str | None = None,
    ) -> None:
        """Write down one act."""
        said = {"by": by, "action": action, "reason": reason, "detail": detail}
        await reply(
            self._redis.xadd(
                keys.audit(customer),
                {name: text for name, text in said.items() if text is not None},
            )
        )

    async def page(
        self,
        customer: CustomerId,
        first: int,
        after: str | None = None,
    ) -> Page[AuditEntry]:
        """At most *first* entries that are older than the one of id *after*, newest first."""
        if after is not None and not ENTRY_ID.fullmatch(after):
            return Page((), has_more=False)
        newest = f"({after}" if after else "+"
        found = await reply(
            self._redis.xrevrange(keys.audit(customer), max=newest, count=first + 1)
        )
        return Page.of([_entry(entry_id.decode(), said) for entry_id, said in found], first)


def _entry(entry_id: str, said: Mapping[bytes, bytes]) -> AuditEntry:
    texts = {name.decode(): text.decode() for name, text in said.items()}
    return AuditEntry(
        id=entry_id,
        at_ms=int(entry_id.partition("-")[0]),
        by=texts["by"],
        action=texts["action"],
        reason=texts.get("reason"),
        detail=texts.get("detail"),
    )
