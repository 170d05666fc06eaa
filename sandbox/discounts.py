"""Coupons, the discounts that they give to invoices, and tax rates made by hand."""

from collections.abc import Mapping
from typing import Any, Final

from sandbox.account import Account, Record
from sandbox.errors import bad_request, not_simulated
from sandbox.params import Params
from sandbox.sdk import KINDS


def discounts_of(account: Account, owner: Record, params: Params) -> list[Record]:
    """Return the discounts of a new invoice: those in *params*, or else the customer's own (a guess)."""
    if (sent := params.pop("discounts", None)) is not None:
        return [_redeem(account, discount) for discount in sent]
    own: Record = owner.get("discount") or {"source": {"coupon": ""}}
    coupon = account.rows["coupons"].get(own["source"]["coupon"])
    return [{"id": own["id"], "coupon": coupon["id"], "terms": coupon}] if coupon else []


def shown_discount(discount: Record) -> Record:
    """Return a discount as Stripe shows an expanded one."""
    source = {"type": "coupon", "coupon": discount["coupon"]}
    return KINDS["discounts"].blank | {"id": discount["id"], "source": source}


def _redeem(account: Account, sent: Params) -> Record:
    if not sent.get("coupon"):
        raise not_simulated("discounts other than by a coupon")
    coupon = account.get("coupons", sent["coupon"], "discounts[0][coupon]")
    account.put("coupons", coupon | {"times_redeemed": coupon.get("times_redeemed", 0) + 1})
    return {"id": account.new_id("di_1"), "coupon": coupon["id"], "terms": coupon}


def _create_coupon(account: Account, params: Params) -> Record:
    """Create a coupon: a percentage, or an amount in one currency."""
    if (params.get("percent_off") is None) == (params.get("amount_off") is None):
        raise bad_request("Give one of percent_off and amount_off.", param="percent_off")
    if params.get("amount_off") is not None and not params.get("currency"):
        raise bad_request("You must pass currency when passing amount_off.", param="currency")
    return account.create("coupons", {"duration": "once", "valid": True} | params)


def _create_tax_rate(account: Account, params: Params) -> Record:
    return account.create(
        "tax_rates", {"active": True, "effective_percentage": params["percentage"]} | params
    )


ACTIONS: Final[Mapping[str, Any]] = {
    "POST /v1/coupons": _create_coupon,
    "POST /v1/tax_rates": _create_tax_rate,
}
