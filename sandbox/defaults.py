"""The fields that a record need not hold: all that our API version requires, as they begin."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

Json = dict[str, Any]


def nothing(names: str) -> Json:
    """Return a hash of nulls."""
    return dict.fromkeys(names.split())


def _fields(text: str) -> Json:
    """Read defaults: ``name`` alone is null, ``name=value`` has a value in JSON without spaces."""
    pairs = (word.partition("=") for word in text.split())
    return {name: orjson.loads(value) if value else None for name, _, value in pairs}


ADDRESS: Final = nothing("city country line1 line2 postal_code state")
INVOICE_SETTINGS: Final = nothing("custom_fields default_payment_method footer rendering_options")
DEFAULTS: Final[Mapping[str, Json]] = {
    "customers": _fields(
        'object="customer" address balance=0 currency customer_account default_source '
        "delinquent=false description discount email livemode=false metadata={} name "
        'next_invoice_sequence=1 phone preferred_locales=[] shipping tax_exempt="none" test_clock'
    )
    | {"invoice_settings": INVOICE_SETTINGS},
    "products": _fields(
        'object="product" active=true default_price description images=[] livemode=false '
        "marketing_features=[] metadata={} package_dimensions shippable statement_descriptor "
        'tax_code tax_details type="service" unit_label url'
    ),
    "prices": _fields(
        'object="price" active=true billing_scheme="per_unit" custom_unit_amount livemode=false '
        'lookup_key metadata={} nickname recurring tax_behavior="unspecified" tiers_mode '
        'transform_quantity type="one_time"'
    ),
    "invoices": _fields(
        'object="invoice" account_country="US" account_name account_tax_ids amount_overpaid=0 '
        "amount_paid=0 amount_shipping=0 application attempt_count=0 attempted=false "
        'auto_advance=false automatically_finalizes_at billing_reason="manual" '
        'collection_method="charge_automatically" custom_fields customer_account '
        'customer_shipping customer_tax_exempt="none" customer_tax_ids=[] default_payment_method '
        "default_source default_tax_rates=[] description discounts=[] due_date effective_at "
        'ending_balance footer from_invoice hosted_invoice_url invoice_pdf issuer={"type":"self"} '
        "last_finalization_error latest_revision livemode=false metadata={} next_payment_attempt "
        "number on_behalf_of parent post_payment_credit_notes_amount=0 "
        "pre_payment_credit_notes_amount=0 receipt_number rendering shipping_cost "
        "shipping_details statement_descriptor test_clock total_discount_amounts=[] "
        "total_pretax_credit_amounts=[] total_taxes webhooks_delivered_at"
    )
    | {
        "automatic_tax": _fields("disabled_reason enabled=false liability provider status"),
        "payment_settings": nothing("default_mandate payment_method_options payment_method_types"),
    },
    "lines": _fields(
        'object="line_item" description discount_amounts=[] discountable=true discounts=[] '
        "livemode=false metadata={} pretax_credit_amounts=[] subscription taxes=[]"
    ),
    "invoiceitems": _fields(
        'object="invoiceitem" customer_account description discountable=true discounts=[] invoice '
        "livemode=false metadata={} parent proration=false tax_rates=[] test_clock"
    ),
    "payment_methods": _fields(
        'object="payment_method" allow_redisplay="unspecified" customer customer_account '
        'livemode=false metadata={} type="card"'
    )
    | {"billing_details": nothing("email name phone tax_id") | {"address": ADDRESS}},
    "invoice_payments": _fields('object="invoice_payment" is_default=true livemode=false'),
    "credit_notes": _fields(
        'object="credit_note" amount_shipping=0 customer_account customer_balance_transaction '
        "discount_amount=0 discount_amounts=[] livemode=false memo metadata={} out_of_band_amount "
        "post_payment_amount=0 pre_payment_amount=0 pretax_credit_amounts=[] reason refunds=[] "
        'shipping_cost status="issued" total_taxes voided_at'
    ),
    "credit_lines": _fields(
        'object="credit_note_line_item" description discount_amount=0 discount_amounts=[] '
        "livemode=false metadata={} pretax_credit_amounts=[] quantity tax_rates=[] taxes=[] "
        "unit_amount unit_amount_decimal"
    ),
    "balance_transactions": _fields(
        'object="customer_balance_transaction" checkout_session credit_note customer_account '
        'description invoice livemode=false metadata={} type="adjustment"'
    ),
    "webhook_endpoints": _fields(
        'object="webhook_endpoint" application description livemode=false metadata={} '
        'status="enabled"'
    ),
    "portal_sessions": _fields(
        'object="billing_portal.session" configuration="bpc_1sandbox" customer_account flow '
        "livemode=false locale on_behalf_of return_url"
    ),
}
