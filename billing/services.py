"""The one place where objects meet: everything the web and the workers share, opened and closed together."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis

from billing.audit import AuditLog
from billing.budget import Budget
from billing.cache import Cache
from billing.catalogue import Catalogue
from billing.changes import Changes
from billing.inbox import Inbox
from billing.ledger import Ledger, LedgerPolicy
from billing.settings import Settings
from billing.stripe_api import StripeApi
from billing.syncs import Syncs
from billing.wakeups import Wakeups, open_wakeups


@dataclass(frozen=True)
class Services:
    """The doors of the core, made once per process and passed in."""

    settings: Settings
    ledger: Ledger
    syncs: Syncs
    audit: AuditLog
    inbox: Inbox
    budget: Budget
    stripe: StripeApi
    cache: Cache
    changes: Changes
    catalogue: Catalogue
    wakeups: Wakeups
