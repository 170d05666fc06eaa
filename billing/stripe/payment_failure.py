"""The failure of an attempt to collect an invoice, as its payment intents show it."""

from collections.abc import Mapping
from typing import Self

import msgspec

from billing.stripe.values import StripeObject


class PaymentFailureRecord(msgspec.Struct, frozen=True, gc=False):
    """The last failed attempt to charge an invoice: Stripe's error code and the bank's reason.

    *action_required*: the customer has to confirm the payment on the invoice's page.
    """

    code: str | None
    decline_code: str | None
    action_required: bool

    @classmethod
    def from_stripe(cls, body: StripeObject) -> Self | None:
        """From a list of ``invoice_payment`` with their payment intents; None if none failed."""
        intents = [(payment.get("payment") or {}).get("payment_intent") for payment in body["data"]]
        for intent in intents:
            if not isinstance(intent, Mapping):
                continue
            error = intent.get("last_payment_error") or {}
            waits = intent.get("status") == "requires_action"
            if error or waits:
                return cls(error.get("code"), error.get("decline_code"), waits)
        return None
