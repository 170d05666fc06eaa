"""Forms, as Stripe reads them: unfolded, then held against the types of the SDK."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache, partial
from typing import Any, Final, get_args, get_origin
from urllib.parse import parse_qsl

from sandbox import sdk
from sandbox.errors import refuse, unsimulated

Params = dict[str, Any]
Reader = Callable[[Any, str], Any]
MAX_DEPTH: Final = 8
_SEGMENT: Final = re.compile(r"\[([^\]]*)\]")
# Parameters that Stripe takes and we do not simulate, wherever they appear; or in one place only.
_UNSIMULATED: Final = """
account_tax_ids after_expiration allow_redisplay application_fee_amount automatic_tax
billing_scheme cash_balance configuration connect currency_options custom_unit_amount
customer_account customer_details default_price_data default_source default_tax_rates
discounts email_type forgive from_invoice invoicing_rules issuer mandate marketing_features
off_session on_behalf_of package_dimensions payment_settings preview_mode recurring refund_amount
refunds rendering rendering_options schedule schedule_details shipping_cost shipping_details source
subscription subscription_cancel subscription_details subscription_pause subscription_update
subscription_update_confirm tax tax_amounts tax_behavior tax_code tax_details tax_id_data
tax_rates test_clock tiers tiers_mode transfer_data transform_quantity validate
credit_notes.credit_amount credit_notes.lines credit_notes.out_of_band_amount
invoice_payments.payment invoice_items.currency invoice_items.invoiceitem"""
UNSIMULATED: Final = frozenset(_UNSIMULATED.split())


def decode(form: bytes) -> Params:
    """Unfold ``lines[0][metadata][app]=x`` into nested dictionaries (lists stay dictionaries)."""
    tree: Params = {}
    for key, value in parse_qsl(form.decode(errors="replace"), keep_blank_values=True):
        head, bracket, _ = key.partition("[")
        path = [head, *_SEGMENT.findall(key)] if bracket else [head]
        if len(path) > MAX_DEPTH:
            raise refuse(f"Invalid parameter: {key[:100]}", param=head)
        node = tree
        for step in path[:-1]:
            node = node.setdefault(step or str(len(node)), {})
            if not isinstance(node, dict):
                raise refuse(f"Invalid hash: {step}", param=head)
        node[path[-1] or str(len(node))] = value
    return tree


def check(sent: Params, endpoint: str) -> Params:
    """Check and convert what was sent; Stripe's 400 for what is unknown, missing or malformed."""
    root = endpoint.split("/")[2]
    taken: Params = _structure_of(sdk.params_of(endpoint), root)(sent, "")
    return taken


@cache
def _structure_of(kind: type, within: str) -> Reader:
    hints, required = sdk.fields(kind)
    readers = {}
    for name, hint in hints.items():
        lacking = not UNSIMULATED.isdisjoint((name, f"{within}.{name}"))
        readers[name.rstrip("_")] = _unsimulated if lacking else _reader(hint, name)
    return partial(_structure, readers, required)


def _structure(readers: Mapping[str, Reader], required: frozenset[str], sent: Any, at: str) -> Any:
    if not isinstance(sent, dict):
        raise refuse(f"Invalid object: {at}", param=at)
    taken = {}
    for name, value in sent.items():
        param = f"{at}[{name}]" if at else name
        if name not in readers:
            message = f"Received unknown parameter: {param}"
            raise refuse(message, code="parameter_unknown", param=param)
        taken[name] = readers[name](value, param)
    for name in required:
        if taken.get(name) is None:
            param = f"{at}[{name}]" if at else name
            raise refuse(f"Missing required param: {param}.", code="parameter_missing", param=param)
    return taken


@cache
def _reader(hint: Any, name: str) -> Reader:
    """Return what reads a value of this type; an empty one unsets."""
    if choices := [value for value in sdk.choices(hint) if value]:
        return partial(_choice, frozenset(choices))
    options = [option for option in sdk.options(hint) if sdk.choices(option) != ("",)]
    nested = next((each for each in options if hasattr(each, "__required_keys__")), None)
    if get_origin(options[0]) is list:
        return partial(_list, _reader(get_args(options[0])[0], name))
    if get_origin(options[0]) is dict:
        return _metadata
    if nested is None:
        return SCALARS[options[0]]
    flat = [SCALARS[option] for option in options if option in SCALARS]
    return partial(_either, _structure_of(nested, name), flat[0] if flat else None)


def _either(nested: Reader, flat: Reader | None, sent: Any, at: str) -> Any:
    if sent == "":
        return None
    return flat(sent, at) if flat and not isinstance(sent, dict) else nested(sent, at)


def _unsimulated(_: Any, at: str) -> Any:
    raise unsimulated(f"the parameter `{at}`")


def _list(one: Reader, sent: Any, at: str) -> list[Any]:
    if sent == "":
        return []
    if not isinstance(sent, dict):
        raise refuse(f"Invalid array: {at}", param=at)
    given = [each for each in sent.values() if each != ""]
    return [one(each, f"{at}[{place}]") for place, each in enumerate(given)]


def _metadata(sent: Any, at: str) -> dict[str, str]:
    if sent == "":
        return {"": ""}
    if not isinstance(sent, dict):
        raise refuse(f"Invalid hash: {at}", param=at)
    for key, value in sent.items():
        if len(key) > 40 or len(_text(value, at) or "") > 500:  # noqa: PLR2004
            message = "Metadata keys have at most 40 characters and values at most 500."
            raise refuse(message, param=f"{at}[{key}]")
    return sent


def _choice(choices: frozenset[str], sent: Any, at: str) -> str | None:
    if (text := _text(sent, at)) is None or text in choices:
        return text
    allowed = ", ".join(sorted(choices)[:20])
    raise refuse(f"Invalid {at}: must be one of {allowed}", param=at)


def _text(sent: Any, at: str) -> str | None:
    if not isinstance(sent, str) or len(sent) > 5000:  # noqa: PLR2004
        raise refuse(f"Invalid string: {at} is a hash or too long", param=at)
    return sent or None


def _scalar(name: str, pattern: str, convert: Callable[[str], Any], sent: Any, at: str) -> Any:
    text = _text(sent, at)
    if text is not None and not re.fullmatch(pattern, text, re.ASCII):
        code = f"parameter_invalid_{name}"
        raise refuse(f"Invalid {name}: {text}", code=code, param=at)
    return None if text is None else convert(text)


SCALARS: Final[Mapping[Any, Reader]] = {
    str: _text,
    int: partial(_scalar, "integer", r"[+-]?\d{1,18}", int),
    bool: partial(_scalar, "boolean", "true|false", "true".__eq__),
    # The figures that Stripe documents: 12 places; 15 digits before the point are a guess.
    Decimal: partial(_scalar, "decimal", r"-?\d{1,15}(\.\d{1,12})?", str),
}
