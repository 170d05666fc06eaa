"""Request parameters: form decoding as Stripe does it, and validation by the types of the SDK."""

import re
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from typing import Any, Final, get_args, get_origin
from urllib.parse import parse_qsl

from sandbox import sdk
from sandbox.errors import bad_request, not_simulated

Params = dict[str, Any]
MAX_DEPTH: Final = 8
MAX_TEXT: Final = 5000
# Length limits of metadata.
MAX_KEY: Final = 40
MAX_VALUE: Final = 500
_SEGMENT: Final = re.compile(r"\[([^\]]*)\]")
# Parameters of Stripe that are not simulated: in every operation, or (with a dot) under one parent.
_NOT_SIMULATED: Final = """
account_tax_ids after_expiration allow_redisplay application_fee_amount cash_balance
configuration connect customer_account customer_details default_price_data
default_source email_type forgive invoicing_rules issuer
mandate marketing_features off_session on_behalf_of package_dimensions payment_settings
preview_mode refund_amount refunds rendering rendering_options schedule schedule_details
shipping_cost shipping_details source subscription subscription_cancel subscription_details
subscription_pause subscription_update subscription_update_confirm tax tax_amounts
tax_code tax_details tax_id_data tax_rates transfer_data validate
credit_notes.credit_amount credit_notes.lines credit_notes.out_of_band_amount
invoice_payments.payment invoice_items.currency invoice_items.invoiceitem lines.invoice_item
recurring.meter automatic_tax.liability coupons.currency_options discounts.discount
discounts.promotion_code lines.discounts invoice_items.discounts invoiceitems.discounts
invoiceitems.tax_behavior invoice_items.tax_behavior price_data.tax_behavior
currency_options.tiers currency_options.custom_unit_amount subscriptions.automatic_tax
subscriptions.current_period_end subscriptions.current_period_start
subscriptions.plan subscriptions.price subscriptions.test_clock test_helpers.customer"""
NOT_SIMULATED: Final = frozenset(_NOT_SIMULATED.split())
# Type → its name in an error code, its pattern, and its converter.
SCALARS: Final[Mapping[Any, tuple[str, str, Callable[[str], Any]]]] = {
    str: ("string", r"(?s:.*)", str),
    int: ("integer", r"[+-]?\d{1,18}", int),
    bool: ("boolean", "true|false", "true".__eq__),
    # Stripe documents 12 decimal places; 15 digits before the point are a guess.
    float: ("number", r"-?\d{1,15}(\.\d{1,12})?", float),
    Decimal: ("decimal", r"-?\d{1,15}(\.\d{1,12})?", str),
}


def decode(form: bytes) -> Params:
    """Decode ``lines[0][metadata][app]=x`` into nested dictionaries (lists stay dictionaries)."""
    tree: Params = {}
    for key, value in parse_qsl(form.decode(errors="replace"), keep_blank_values=True):
        head = key.partition("[")[0]
        path, node = [head, *_SEGMENT.findall(key)], tree
        if len(path) > MAX_DEPTH:
            raise bad_request(f"Invalid parameter: {key[:100]}", param=head)
        for step in path[:-1]:
            node = node.setdefault(step or str(len(node)), {})
            if not isinstance(node, dict):
                raise bad_request(f"Invalid hash: {step}", param=head)
        node[path[-1] or str(len(node))] = value
    return tree


def encode(value: Any) -> Any:
    """Convert JSON to the shape that :func:`decode` returns."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        return {str(name): encode(item) for name, item in value.items()}
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def validate(sent: Params, endpoint: str) -> Params:
    """Validate and convert *sent*; Stripe's 400 for an unknown, missing or malformed parameter."""
    return _convert_structure(sdk.params_of(endpoint), endpoint.split("/")[2], sent, "")


def _convert_structure(kind: type, name: str, sent: Params, at: str) -> Params:
    hints, required = sdk.fields(kind)
    path, converted = f"{at}[{{}}]" if at else "{}", {}
    for field, value in sent.items():
        param = path.format(field)
        if field not in hints:
            message = f"Received unknown parameter: {param}"
            raise bad_request(message, code="parameter_unknown", param=param)
        if field in NOT_SIMULATED or f"{name}.{field}" in NOT_SIMULATED:
            raise not_simulated(f"the parameter `{param}`")
        converted[field] = _convert_value(hints[field], field, value, param)
    for param in [path.format(field) for field in required if converted.get(field) is None]:
        raise bad_request(
            f"Missing required param: {param}.", code="parameter_missing", param=param
        )
    return converted


def _convert_value(hint: Any, name: str, sent: Any, at: str) -> Any:
    """Convert one value to one of the types that *hint* allows; an empty string unsets it."""
    options = {get_origin(option) or option: option for option in sdk.options(hint)}
    if sent == "":
        return [] if list in options else None
    if isinstance(sent, str):
        return _convert_scalar(options, {*sdk.choices(hint)} - {""}, sent, at)
    for origin, option in options.items():
        if origin is list:
            (item,) = get_args(option)
            values = [value for value in sent.values() if value != ""]
            return [_convert_value(item, name, v, f"{at}[{n}]") for n, v in enumerate(values)]
        if hasattr(option, "__required_keys__"):
            return _convert_structure(option, name, sent, at)
        if origin is dict:
            structure = get_args(option)[-1]
            if not hasattr(structure, "__required_keys__"):
                return _check_metadata(sent, at)
            return {
                key: _convert_structure(structure, name, value, f"{at}[{key}]")
                for key, value in sent.items()
            }
    raise bad_request(f"Invalid string: {at}", param=at)


def _convert_scalar(options: Mapping[Any, Any], words: Collection[str], sent: str, at: str) -> Any:
    scalars = [option for option in options if option in SCALARS]
    number = bool(words) and int in scalars and sent not in words
    kind = str if words and not number else next(iter(scalars), None)
    if kind is None:
        raise bad_request(f"Invalid {'list' if list in options else 'hash'}: {at}", param=at)
    name, pattern, convert = SCALARS[kind]
    if len(sent) > MAX_TEXT or not re.fullmatch(pattern, sent, re.ASCII):
        code = f"parameter_invalid_{name}"
        raise bad_request(f"Invalid {name}: {sent[:MAX_TEXT]}", code=code, param=at)
    if kind is str and words and sent not in words:
        message = f"Invalid {at}: must be one of {', '.join(sorted(words)[:20])}"
        raise bad_request(message, param=at)
    return convert(sent)


def _check_metadata(sent: Params, at: str) -> Params:
    for key, value in sent.items():
        if len(key) > MAX_KEY or not isinstance(value, str) or len(value) > MAX_VALUE:
            message = f"Metadata keys have at most {MAX_KEY} characters, values {MAX_VALUE}."
            raise bad_request(message, param=f"{at}[{key}]")
    return sent
