"""All simulated operations: the common verbs of each kind, and those of single modules."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from sandbox import (
    company,
    credit_notes,
    customers,
    discounts,
    invoices,
    lines,
    payments,
    prices,
    resources,
    sdk,
    test_clocks,
    webhooks,
)
from sandbox.account import Account
from sandbox.errors import StripeError, not_simulated
from sandbox.params import Params
from sandbox.sdk import KINDS, Json
from sandbox.serializers import serialize

VERBS: Final[Mapping[str, tuple[str, Callable[..., Json]]]] = {
    "create": ("POST /v1/{}", resources.create),
    "list": ("GET /v1/{}", resources.list_objects),
    "search": ("GET /v1/{}/search", resources.search),
    "retrieve": ("GET /v1/{}/*", resources.retrieve),
    "update": ("POST /v1/{}/*", resources.update),
    "delete": ("DELETE /v1/{}/*", resources.delete),
}
# Modules with operations of their own.
MODULES: Final = (
    company,
    credit_notes,
    customers,
    discounts,
    invoices,
    lines,
    payments,
    prices,
    test_clocks,
    webhooks,
)
# Kinds whose objects have their path under another object's.
NESTED_UNDER: Final = {
    "balance_transactions": "customers/*/",
    "payment_methods": "customers/*/",
    "lines": "invoices/*/",
    "configurations": "billing_portal/",
    "test_clocks": "test_helpers/",
}


class Operation(NamedTuple):
    """One operation; ``endpoint`` is ``METHOD /v1/template``, the unit of Stripe's rate limits."""

    endpoint: str
    handler: Callable[..., Json]
    kind: str
    is_list: bool

    def perform(self, account: Account, params: Params, ids: Sequence[str]) -> Json:
        """Run the operation with validated parameters and return the serialized result."""
        result = self.handler(account, params, *ids)
        if "object" in result:
            return result
        return serialize(account, self.kind, account.rows[self.kind].get(result["id"], result))


class Routes:
    """Matches requests to operations, among all operations that the SDK has."""

    def __init__(self) -> None:
        self.operations: dict[str, Operation] = {}
        self._patterns: defaultdict[tuple[str, int], list[tuple[str, Operation | None]]]
        self._patterns, actions = defaultdict(list), _actions()
        for endpoint in sorted(sdk.operations(), key=lambda name: name.count("{")):
            if handler := actions.get(re.sub(r"\{\w+\}", "*", endpoint)):
                kind = next(word for word in reversed(endpoint.split("/")) if word in KINDS)
                is_list = "limit" in sdk.fields(sdk.params_of(endpoint))[0]
                self.operations[endpoint] = Operation(endpoint, handler, kind, is_list)
            pattern = (re.sub(r"\{\w+\}", "([^/]+)", endpoint), self.operations.get(endpoint))
            self._patterns[endpoint.split("/")[2], endpoint.count("/")].append(pattern)

    def match(self, method: str, path: str) -> tuple[Operation, Sequence[str]]:
        """Return the operation and the ids in its path; StripeError 404, or 501 if only Stripe has it."""
        for pattern, operation in self._patterns.get((path.split("/")[2], path.count("/")), ()):
            if match := re.fullmatch(pattern, f"{method} {path}"):
                if operation is None:
                    raise not_simulated(f"{method} {path}")
                return operation, match.groups()
        message = f"Unrecognized request URL ({method}: {path}). See https://stripe.com/docs."
        raise StripeError(404, message)


def _actions() -> dict[str, Callable[..., Json]]:
    actions: dict[str, Callable[..., Json]] = {}
    for name, kind in KINDS.items():
        for verb in kind.verbs:
            template, handler = VERBS[verb]
            actions[template.format(NESTED_UNDER.get(name, "") + name)] = partial(handler, name)
    actions["GET /v1/payment_methods/*"] = partial(resources.retrieve, "payment_methods")
    for module in MODULES:
        actions.update(module.ACTIONS)
    return actions
