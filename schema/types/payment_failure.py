"""The payment failure type: the reason for which an invoice was not paid, in words for the customer."""

from collections.abc import Mapping

import strawberry

from billing.stripe.payment_failure import PaymentFailureRecord
from schema.decorators import graphql_type

CONFIRM = "The bank wants the payment to be confirmed. Open the invoice's page to confirm it."
NO_REASON = (
    "The bank declined the payment and gave no reason. Ask the bank, or pay with another card."
)
# Codes of Stripe (docs.stripe.com/declines/codes). A reason that would warn a thief is not told, as advised there.
REASONS: Mapping[str, str] = {
    "authentication_required": CONFIRM,
    "card_not_supported": "The card does not support this purchase. Pay with another card.",
    "card_velocity_exceeded": "The card's limit is used up. Pay with another card, or ask the bank.",
    "currency_not_supported": "The card does not support the currency. Pay with another card.",
    "expired_card": "The card has expired. Add a card that is valid.",
    "incorrect_cvc": "The card's security code is wrong. Add the card again.",
    "incorrect_number": "The card's number is wrong. Add the card again.",
    "insufficient_funds": "The card has insufficient funds. Pay with another card, or try again later.",
    "invalid_account": "The card's account is not valid. Ask the bank, or pay with another card.",
    "issuer_not_available": "The bank could not be reached. Try again later.",
    "missing": "No card is stored. Add one, or pay on the invoice's page.",
    "processing_error": "The payment could not be processed. Try again later.",
    "try_again_later": "The bank asks to try again later.",
    "withdrawal_count_limit_exceeded": "The card's limit is used up. Pay with another card.",
}
CONCEALED = frozenset(
    {
        "fraudulent",
        "lost_card",
        "merchant_blacklist",
        "pickup_card",
        "restricted_card",
        "stolen_card",
    }
)
GENERIC = "generic_decline"


@graphql_type
class PaymentFailure:
    """The last failed attempt to collect an invoice."""

    code: str | None = strawberry.field(
        description="Stripe's error code, such as `card_declined`; null when Stripe named none."
    )
    decline_code: str | None = strawberry.field(
        description="Reason of the bank, such as `insufficient_funds`; null when it named none. `generic_decline` stands for reasons that Stripe advises not to tell."
    )
    message: str = strawberry.field(
        description="Reason and remedy in plain English, for the customer."
    )
    action_required: bool = strawberry.field(
        description="True when the customer has to confirm the payment on the invoice's page (3-D Secure)."
    )

    @classmethod
    def from_record(cls, failure: PaymentFailureRecord) -> "PaymentFailure":
        """Convert a *failure*."""
        decline = GENERIC if failure.decline_code in CONCEALED else failure.decline_code
        reason = REASONS.get(decline or failure.code or "", NO_REASON)
        return cls(
            code=failure.code,
            decline_code=decline,
            message=CONFIRM if failure.action_required else reason,
            action_required=failure.action_required,
        )
