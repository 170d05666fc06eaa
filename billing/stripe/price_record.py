"""A Stripe Price, and the reason for which it cannot count usage."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Self

import msgspec

from billing.stripe.values import StripeObject, optional_decimal

NEW_PRICE = "Give its lookup key to a one-time price per unit (transfer_lookup_key)."


class PriceRecord(msgspec.Struct, frozen=True, gc=False):
    """A Stripe Price and its product's labels; *unit_amount* in minor units.

    It is None if the price is tiered, or if the customer chooses the amount (*is_custom*). *is_package*: the
    unit amount is that of a package of several units.
    """

    id: str
    sku: str | None
    active: bool
    currency: str
    unit_amount: Decimal | None
    description: str | None
    unit: str | None
    is_recurring: bool
    is_tiered: bool
    is_package: bool
    is_custom: bool
    product_active: bool

    @classmethod
    def from_stripe(cls, body: StripeObject) -> Self:
        """From a ``price`` whose product is expanded."""
        product = body.get("product")
        product = product if isinstance(product, Mapping) else {}
        return cls(
            id=body["id"],
            sku=body.get("lookup_key"),
            active=body.get("active", True),
            currency=body["currency"],
            unit_amount=optional_decimal(body.get("unit_amount_decimal", body.get("unit_amount"))),
            description=product.get("name"),
            unit=product.get("unit_label"),
            is_recurring=body.get("type", "one_time") != "one_time" or bool(body.get("recurring")),
            is_tiered=body.get("billing_scheme", "per_unit") != "per_unit",
            is_package=body.get("transform_quantity") is not None,
            is_custom=body.get("custom_unit_amount") is not None,
            product_active=product.get("active", not product.get("deleted", False)),
        )

    @property
    def problem(self) -> str | None:
        """The cause for which Stripe would not bill quantity times unit amount, with the cure; None if it would."""
        if not self.product_active:
            return "its product is archived. Activate the product."
        causes = {
            "it is recurring, and invoices take one-time prices": self.is_recurring,
            "it is tiered": self.is_tiered,
            "it counts packages of several units": self.is_package,
            "the customer chooses its amount": self.is_custom,
            "it has no unit amount": self.unit_amount is None,
        }
        cause = next((cause for cause, applies in causes.items() if applies), None)
        return cause and f"{cause}. {NEW_PRICE}"
