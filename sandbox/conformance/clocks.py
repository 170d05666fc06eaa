"""Cases that take days: customers on a test clock, whose time is moved forward."""

import time
from collections.abc import Mapping

from sandbox.conformance.account import TestAccount
from sandbox.conformance.probe import Case, Probe
from sandbox.sdk import Json

DAY = 86_400
FAILING = "pm_card_chargeCustomerFail"


class Clock:
    """A test clock."""

    def __init__(self, account: TestAccount, clock: Json) -> None:
        self._account = account
        self.id: str = clock["id"]
        self.now: int = clock["frozen_time"]

    @classmethod
    async def create(cls, account: TestAccount) -> "Clock":
        """A clock that shows the present, or the sandbox's own time."""
        made = await account.call(
            "POST", "test_helpers/test_clocks", {"frozen_time": int(time.time())}
        )
        return cls(account, made.body)

    async def advance(self, days: float) -> None:
        """Move the time forward, and wait until Stripe has done what was due."""
        self.now += int(days * DAY)
        path = f"test_helpers/test_clocks/{self.id}"
        await self._account.call("POST", f"{path}/advance", {"frozen_time": self.now})

        async def is_ready() -> bool:
            return bool((await self._account.get(path))["status"] == "ready")

        await self._account.wait(is_ready, 300)

    async def delete(self) -> None:
        """Delete the clock with its customers."""
        await self._account.call("DELETE", f"test_helpers/test_clocks/{self.id}")


async def _bill(account: TestAccount, clock: Clock, card: str | None, **params: object) -> Json:
    """A bill of 5.00 of a customer on *clock*, finalized to be collected."""
    owner = (await account.customer(test_clock=clock.id))["id"]
    if card:
        await account.card(card, owner)
    made = await account.draft({"amount": 500}, customer=owner, **params)
    return await account.post(f"invoices/{made['id']}/finalize", {"auto_advance": True})


async def payment_retries(account: TestAccount, probe: Probe) -> None:
    """The days of the retries after a declined charge."""
    clock = await Clock.create(account)
    try:
        bill = await _bill(account, clock, FAILING)
        first = bill["next_payment_attempt"]
        probe.expect("days until the first retry", 3, first and round((first - clock.now) / DAY))
        await clock.advance(3.1)

        async def is_tried_again() -> bool:
            return bool((await account.get(f"invoices/{bill['id']}"))["attempt_count"] > 1)

        await account.wait(is_tried_again)
        intents = (await account.get("payment_intents", {"customer": bill["customer"]}))["data"]
        probe.expect("payment intents after two attempts", 1, len(intents))
    finally:
        await clock.delete()


async def delinquency(account: TestAccount, probe: Probe) -> None:
    """A failed charge and a due date that passed; then somebody writes it off."""
    clock = await Clock.create(account)
    try:
        bill = await _bill(account, clock, FAILING)
        owner = await account.get(f"customers/{bill['customer']}")
        probe.expect("delinquent after a failed charge", True, owner["delinquent"])
        await account.post(f"invoices/{bill['id']}/mark_uncollectible")
        owner = await account.get(f"customers/{bill['customer']}")
        probe.expect("delinquent after it was written off", False, owner["delinquent"])
        terms = {"collection_method": "send_invoice", "days_until_due": 1}
        late = await _bill(account, clock, None, **terms)
        await clock.advance(1.5)

        async def is_delinquent() -> bool:
            return bool((await account.get(f"customers/{late['customer']}"))["delinquent"])

        await account.wait(is_delinquent)
        probe.expect("delinquent after the due date", True, await is_delinquent())
    finally:
        await clock.delete()


async def failed_finalization(account: TestAccount, probe: Probe) -> None:
    """A draft that the clock cannot finalize."""
    clock = await Clock.create(account)
    try:
        owner = (await account.customer(test_clock=clock.id))["id"]
        tax: Json = {"automatic_tax": {"enabled": True}, "auto_advance": True}
        made = await account.draft({"amount": 500}, customer=owner, **tax)
        await clock.advance(4)

        async def has_failed() -> bool:
            shown = await account.get(f"invoices/{made['id']}")
            return shown["last_finalization_error"] is not None

        await account.wait(has_failed)
        shown = await account.get(f"invoices/{made['id']}")
        seen = (shown["status"], shown["auto_advance"])
        probe.expect("status and auto_advance afterwards", ("draft", False), seen)
        events = await account.events(made["id"])
        probe.expect("events of the failure", 1, events.count("invoice.finalization_failed"))
    finally:
        await clock.delete()


async def automatic_charge(account: TestAccount, probe: Probe) -> None:
    """A default card, and none."""
    clock = await Clock.create(account)
    try:
        paid = await _bill(account, clock, "pm_card_visa")
        probe.expect("status with a card", "paid", paid["status"])
        unpaid = await _bill(account, clock, None)
        probe.expect("status without a card", "open", unpaid["status"])
        events = await account.events(unpaid["id"])
        probe.expect("a failed payment is told", True, "invoice.payment_failed" in events)
    finally:
        await clock.delete()


CASES: Mapping[str, Case] = {
    "automatic-charge": automatic_charge,
    "payment-retries": payment_retries,
    "delinquency": delinquency,
    "failed-finalization": failed_finalization,
}
