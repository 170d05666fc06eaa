"""Which operation a request means, and what Stripe serves and this double does not."""

from typing import Any, Final

from sandbox.errors import StripeError, unsimulated
from sandbox.operations import Operation, operations

# The first words of paths that Stripe serves and we do not.
_ELSEWHERE: Final = """
account account_links account_sessions accounts apple_pay application_fees apps balance
balance_settings balance_transactions billing charges checkout climate confirmation_tokens
country_specs coupons customer_sessions disputes entitlements ephemeral_keys exchange_rates
external_accounts file_links files financial_connections forwarding identity
invoice_rendering_templates issuing mandates payment_attempt_records payment_intents payment_links
payment_method_configurations payment_method_domains payment_records payouts plans
product_catalog promotion_codes quotes radar refunds reporting reviews setup_attempts
setup_intents shipping_rates sigma sources subscription_items subscription_schedules
subscriptions tax tax_codes tax_ids tax_rates terminal test_helpers three_d_secure tokens topups
transfers treasury"""
ELSEWHERE: Final = frozenset(_ELSEWHERE.split())
# And those below a resource that we do have.
_BESIDES: Final = """
billing_portal/configurations credit_notes/*/lines credit_notes/preview/lines
customers/*/bank_accounts customers/*/cards customers/*/cash_balance
customers/*/cash_balance_transactions customers/*/discount customers/*/funding_instructions
customers/*/sources customers/*/subscriptions customers/*/tax_ids invoices/*/attach_payment
invoices/*/detach_payment invoices/upcoming payment_methods prices/search products/*/features
products/search"""
BESIDES: Final = [entry.split("/") for entry in _BESIDES.split()]


class Routes:
    """Finds the operation for a request by walking its path a word at a time."""

    def __init__(self) -> None:
        self.named = {operation.endpoint: operation for operation in operations()}
        self._tree: dict[str, Any] = {}
        for operation in self.named.values():
            method, template = operation.endpoint.split(" ")
            node = self._tree
            for word in template.strip("/").split("/")[1:]:
                node = node.setdefault("*" if word.startswith("{") else word, {})
            node[f" {method}"] = operation

    def find(self, method: str, path: str) -> tuple[Operation, list[str]]:
        """Return the operation and the ids in its path; StripeError 404, or 501 if Stripe has it."""
        node, ids = self._tree, []
        for word in path.split("/")[2:]:
            following = node.get(word)
            if following is None and (following := node.get("*")) is not None:
                ids.append(word)
            if following is None or not word:
                raise _nowhere(method, path)
            node = following
        operation = node.get(f" {method}")
        if operation is None:
            raise _nowhere(method, path)
        return operation, ids


def _nowhere(method: str, path: str) -> StripeError:
    words = path.removeprefix("/v1/").split("/")
    known = any(
        len(words) >= len(pattern)
        and all(want in ("*", word) for want, word in zip(pattern, words, strict=False))
        for pattern in BESIDES
    )
    if words[0] in ELSEWHERE or known:
        return unsimulated(f"{method} {path}")
    return StripeError(
        404,
        f"Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs or we "
        "can help at https://support.stripe.com/.",
    )
