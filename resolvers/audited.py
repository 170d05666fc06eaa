"""An act of Support's: it stands in the audit log before it is done, and whoever watches hears of it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from billing.audit import Intent
from billing.change_feed import Change, ChangeReason
from billing.errors import Refused
from billing.usage import CustomerId
from resolvers.context import Context

log = structlog.get_logger(__name__)


@dataclass
class Noted:
    """An act that stands in the log; say what stands *after*, and which *sync* it caused.

    *done* says that it was done before, under the same key: nothing is to be done again. *before* is what
    stood when it was begun for the first time.
    """

    done: bool
    before: Mapping[str, str | None]
    after: dict[str, str | None] = field(default_factory=dict)
    sync: str | None = None


@dataclass(frozen=True)
class Act:
    """Something that Support does to a customer: *action* is the mutation's name, *reason* theirs.

    *customer* is None for what concerns nobody in particular; for *key* and *about* see `Intent`.
    """

    context: Context
    customer: CustomerId | None
    action: str
    reason: str | None = None
    key: str | None = None
    about: str = ""

    @asynccontextmanager
    async def noted(self, before: Mapping[str, str | None]) -> AsyncIterator[Noted]:
        """The act is the block: it stands in the log before, how it ended after, and watchers hear of it.

        Whatever is neither done nor refused ends UNKNOWN: another try under the same key finishes it.
        """
        services, by = self.context.services, self.context.viewer.subject
        intent = Intent(
            self.customer, by, self.action, self.reason, before, key=self.key, about=self.about
        )
        begun = await services.audit.begin(intent)
        noted = Noted(begun.ended, begun.before)
        try:
            yield noted
        except Refused as refusal:
            await services.audit.refuse(begun, refusal.code)
            raise
        await services.audit.finish(begun, noted.after)
        log.info("support.acted", customer=self.customer, action=self.action)
        if self.customer is not None:
            change = Change(self.customer, ChangeReason.SUPPORT, sync=noted.sync)
            await services.changes.publish(change)
