"""What an operation takes, in a short notation.

``"customer* amount:int lines*:[line] discounts!"``: ``*`` is required, ``!`` exists at Stripe but
is not simulated, ``[x]`` is a list, and the word after the colon is a scalar of ``sandbox.forms``
or a structure of STRUCTURES. No colon means a string.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter: its type's name, and whether it is required, a list, or not simulated."""

    kind: str
    required: bool = False
    many: bool = False
    known_only: bool = False


Fields = Mapping[str, Field]


def fields(text: str) -> Fields:
    """Read a set of fields from its short notation."""
    return dict(_field(word) for word in text.split())


def _field(word: str) -> tuple[str, Field]:
    name, _, kind = word.partition(":")
    bare = name.rstrip("*!")
    many = kind.startswith("[")
    return bare, Field(kind.strip("[]") or "str", "*" in name, many, "!" in name)


STRUCTURES: dict[str, Fields] = {
    "address": fields("city country line1 line2 postal_code state"),
    "shipping": fields("address*:address name* phone"),
    "period": fields("start*:int end*:int"),
    "pricing": fields("price"),
    "price_data": fields(
        "currency* product product_data:product_data tax_behavior unit_amount:int unit_amount_decimal:decimal"
    ),
    "catalogue_price_data": fields(
        "currency* product* tax_behavior unit_amount:int unit_amount_decimal:decimal"
    ),
    "price_product": fields(
        "name* id active:bool metadata:map unit_label statement_descriptor tax_code! tax_details!"
    ),
    "product_data": fields(
        "name* description images:[str] metadata:map unit_label tax_code! tax_details!"
    ),
    "invoice_settings": fields(
        "default_payment_method footer custom_fields:[custom_field] rendering_options!"
    ),
    "flow": fields(
        "type* after_completion:after_completion subscription_cancel! subscription_pause! "
        "subscription_update! subscription_update_confirm!"
    ),
    "after_completion": fields("type* redirect:redirect hosted_confirmation:confirmation"),
    "redirect": fields("return_url*"),
    "confirmation": fields("custom_message"),
    "custom_field": fields("name* value*"),
    "range": fields("gt:int gte:int lt:int lte:int"),
    "recurring": fields("interval usage_type meter"),
    "line": fields(
        "amount:int description discountable:bool invoice_item metadata:map period:period "
        "price_data:price_data pricing:pricing quantity:int quantity_decimal:decimal "
        "discounts! tax_amounts! tax_rates!"
    ),
    "line_edit": fields(
        "id* amount:int description discountable:bool metadata:map period:period "
        "price_data:price_data pricing:pricing quantity:int quantity_decimal:decimal "
        "discounts! tax_amounts! tax_rates!"
    ),
    "line_removal": fields("id* behavior*"),
    "preview_item": fields(
        "amount:int currency description discountable:bool invoiceitem! metadata:map "
        "period:period price price_data:catalogue_price_data quantity:int quantity_decimal:decimal "
        "unit_amount:int unit_amount_decimal:decimal discounts! tax_behavior! tax_code! tax_rates!"
    ),
    "credit_line": fields(
        "type* invoice_line_item amount:int quantity:int unit_amount:int "
        "unit_amount_decimal:decimal description metadata:map tax_amounts! tax_rates!"
    ),
}
