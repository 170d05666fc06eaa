"""The table of contents: every operation that is simulated, and what does it."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from sandbox import customers, invoices, lines, payments, resources, sdk, webhooks
from sandbox.account import Unit
from sandbox.errors import StripeError, unsimulated
from sandbox.forms import Params
from sandbox.kinds import KINDS
from sandbox.sdk import Json
from sandbox.shapes import shape

# Beside the plain verbs of sandbox.kinds; * is an id.
ACTIONS: Final[Mapping[str, Callable[..., Json]]] = {
    "POST /v1/customers": customers.create,
    "POST /v1/customers/*": customers.update,
    "DELETE /v1/customers/*": customers.delete,
    "POST /v1/customers/*/balance_transactions": customers.adjust_balance,
    "GET /v1/payment_methods/*": partial(resources.retrieve, "payment_methods"),
    "POST /v1/payment_methods/*/attach": customers.attach,
    "POST /v1/payment_methods/*/detach": customers.detach,
    "POST /v1/billing_portal/sessions": customers.create_session,
    "POST /v1/prices": customers.create_price,
    "POST /v1/prices/*": customers.update_price,
    "POST /v1/invoices": invoices.create,
    "POST /v1/invoices/create_preview": invoices.create_preview,
    "POST /v1/invoices/*": invoices.update,
    "DELETE /v1/invoices/*": invoices.delete,
    "POST /v1/invoices/*/add_lines": partial(lines.change_lines, "add"),
    "POST /v1/invoices/*/update_lines": partial(lines.change_lines, "update"),
    "POST /v1/invoices/*/remove_lines": partial(lines.change_lines, "remove"),
    "GET /v1/invoices/*/lines": lines.list_lines,
    "POST /v1/invoices/*/finalize": invoices.finalize,
    "POST /v1/invoices/*/pay": payments.pay,
    "POST /v1/invoices/*/void": partial(payments.step, "void"),
    "POST /v1/invoices/*/mark_uncollectible": partial(payments.step, "mark_uncollectible"),
    "POST /v1/invoices/*/send": partial(payments.step, "send"),
    "POST /v1/invoiceitems": lines.create_item,
    "GET /v1/invoiceitems": lines.list_items,
    "GET /v1/invoiceitems/*": lines.retrieve_item,
    "POST /v1/invoiceitems/*": partial(lines.change_item, "update"),
    "DELETE /v1/invoiceitems/*": partial(lines.change_item, "remove"),
    "POST /v1/credit_notes": payments.create_credit_note,
    "POST /v1/webhook_endpoints": webhooks.create_endpoint,
    "POST /v1/webhook_endpoints/*": webhooks.update_endpoint,
}
OF_CUSTOMERS: Final = ("balance_transactions", "payment_methods")
VERBS: Final[Mapping[str, tuple[str, Callable[..., Json]]]] = {
    "create": ("POST /v1/{}", resources.create),
    "list": ("GET /v1/{}", resources.find),
    "search": ("GET /v1/{}/search", resources.search),
    "retrieve": ("GET /v1/{}/*", resources.retrieve),
    "update": ("POST /v1/{}/*", resources.update),
    "delete": ("DELETE /v1/{}/*", resources.delete),
}


class Operation(NamedTuple):
    """``endpoint`` is ``METHOD /v1/template``, the unit in which Stripe counts calls."""

    endpoint: str
    act: Callable[..., Json]
    kind: str
    lists: bool

    def perform(self, unit: Unit, params: Params, ids: Sequence[str]) -> Json:
        """Do what is asked with checked parameters, and show what it made."""
        made = self.act(unit, params, *ids)
        return made if "object" in made else shape(unit, self.kind, made)


class Routes:
    """Finds the operation that a request means, among all that the SDK knows."""

    def __init__(self) -> None:
        self.named: dict[str, Operation] = {}
        self._patterns: defaultdict[tuple[str, ...], list[tuple[list[str], Operation | None]]]
        self._patterns = defaultdict(list)
        actions = _actions()
        for endpoint in sorted(sdk.operations(), key=lambda name: name.count("{")):
            method, pattern = re.sub(r"\{\w+\}", "*", endpoint).split(" ")
            words, operation = pattern.split("/"), None
            if act := actions.get(f"{method} {pattern}"):
                kind = next(word for word in reversed(words) if word in KINDS)
                lists = "limit" in sdk.fields(sdk.params_of(endpoint))[0]
                operation = Operation(endpoint, act, kind, lists)
                self.named[endpoint] = operation
            self._patterns[method, words[2], "/" * len(words)].append((words, operation))

    def find(self, method: str, path: str) -> tuple[Operation, list[str]]:
        """Return the operation and the ids in its path; StripeError 404, or 501 if Stripe has it."""
        words = path.split("/")
        for pattern, operation in self._patterns.get((method, words[2], "/" * len(words)), ()):
            pairs = list(zip(pattern, words, strict=True))
            if all(want == word or (want == "*" and word) for want, word in pairs):
                if operation is None:
                    raise unsimulated(f"{method} {path}")
                return operation, [word for want, word in pairs if want == "*"]
        message = f"Unrecognized request URL ({method}: {path}). See https://stripe.com/docs."
        raise StripeError(404, message)


def _actions() -> dict[str, Callable[..., Json]]:
    found = {}
    for name, kind in KINDS.items():
        path = f"customers/*/{name}" if name in OF_CUSTOMERS else name
        for verb in kind.verbs.split():
            template, act = VERBS[verb]
            found[template.format(path)] = partial(act, name)
    return {**found, **ACTIONS}
