"""Erasure of what is known about the person behind a customer, for ``python -m billing.ledger erase``.

What was billed stays under the customer's id, because accounting has to keep it. Names and e-mail addresses are
Stripe's, and are here only in caches, from where they are not shown again and expire within an hour.
"""

import argparse
import sys

from billing.audit import ActionIntent, AuditLog
from billing.audit.log import ERASED
from billing.cache import Cache, entries, open_cache
from billing.cache.redis_backend import CacheUnavailable
from billing.change_feed import Change, ChangeReason, open_change_feed
from billing.errors import Refused
from billing.ledger import Ledger
from billing.settings import load_settings
from billing.usage import CustomerId

ACTOR = "operator"
DESCRIPTION = """\
Erase what is known about the person behind a customer, after Stripe was told to (delete or redact the customer there
first). Refused while usage is not billed or billing is on hold.
  Erased: apps, regions and organizations of all months; the reasons of corrections, holds and other acts of
  Support; messages of failed syncs. Names and addresses in caches are not shown again, also while
  Stripe is away, and leave the cache's server and all processes within an hour.
  Stays, under the id: amounts, quantities and SKUs of each month until BILLING_LEDGER_RETENTION days after
  its bill; corrections and the audit log (who did what and when) without their texts, the log for
  BILLING_AUDIT_RETENTION days. Invoices stay at Stripe.
"""


async def run(_: str, ledger: Ledger, audit: AuditLog, options: argparse.Namespace) -> int:
    """Run the command."""
    url, customer = load_settings().cache, options.customer
    registered = await ledger.usage.registered_currencies([customer])
    if not registered and not (await audit.page(customer, 1)).items:
        sys.stdout.write(f"Nothing was erased. The ledger knows no customer {customer}.\n")
        return 1
    async with open_cache(url) as cache, open_change_feed(url, cache) as change_feed:
        try:
            await erase_customer(ledger, audit, cache, customer, options.reason)
        except Refused as refusal:
            sys.stdout.write(f"Nothing was erased. {refusal.message}\n")
            return 1
        except CacheUnavailable as error:
            sys.stdout.write(
                f"BILLING_CACHE_URL: {error.message} The rest is erased; a repetition is harmless.\n"
            )
            return 1
        await change_feed.publish(Change(customer, ChangeReason.SUPPORT))
    sys.stdout.write(f"What was known about the person behind {customer} is erased.\n")
    return 0


async def erase_customer(
    ledger: Ledger, audit: AuditLog, cache: Cache, customer: CustomerId, reason: str
) -> None:
    """Erase what is known about the person behind *customer*; Refused while anything is left to bill."""
    started = await audit.begin(ActionIntent(customer, ACTOR, "eraseCustomer", reason, {}))
    try:
        await ledger.periods.erase(customer, ERASED)
    except Refused as refusal:
        await audit.refuse(started, refusal.code)
        raise
    await audit.erase(started, customer)
    await cache.erase(customer, entries.usage(customer), entries.CUSTOMERS)
    await audit.complete(started, {"erased": "texts, breakdowns and cached names"})
