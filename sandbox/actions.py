"""Every operation that is simulated: the plain verbs of the kinds, and each module's own."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from sandbox import customers, invoices, lines, resources, sdk, webhooks
from sandbox.account import Account
from sandbox.errors import StripeError, unsimulated
from sandbox.params import Params
from sandbox.sdk import KINDS, Json
from sandbox.serializers import shape

VERBS: Final[Mapping[str, tuple[str, Callable[..., Json]]]] = {
    "create": ("POST /v1/{}", resources.create),
    "list": ("GET /v1/{}", resources.find),
    "search": ("GET /v1/{}/search", resources.search),
    "retrieve": ("GET /v1/{}/*", resources.retrieve),
    "update": ("POST /v1/{}/*", resources.update),
    "delete": ("DELETE /v1/{}/*", resources.delete),
}
# Kinds whose objects are found under another one's.
UNDER: Final = {
    "balance_transactions": "customers/*/",
    "payment_methods": "customers/*/",
    "lines": "invoices/*/",
}


class Operation(NamedTuple):
    """``endpoint`` is ``METHOD /v1/template``, the unit in which Stripe counts calls."""

    endpoint: str
    act: Callable[..., Json]
    kind: str
    lists: bool

    def perform(self, account: Account, params: Params, ids: Sequence[str]) -> Json:
        """Do what is asked with checked parameters, and show what it made as it is then."""
        made = self.act(account, params, *ids)
        if "object" in made:
            return made
        return shape(account, self.kind, account.rows[self.kind].get(made["id"], made))


class Routes:
    """Finds the operation that a request means, among all that the SDK knows."""

    def __init__(self) -> None:
        self.named: dict[str, Operation] = {}
        self._known: defaultdict[tuple[str, int], list[tuple[str, Operation | None]]]
        self._known, actions = defaultdict(list), _actions()
        for endpoint in sorted(sdk.operations(), key=lambda name: name.count("{")):
            if act := actions.get(re.sub(r"\{\w+\}", "*", endpoint)):
                kind = next(word for word in reversed(endpoint.split("/")) if word in KINDS)
                lists = "limit" in sdk.fields(sdk.params_of(endpoint))[0]
                self.named[endpoint] = Operation(endpoint, act, kind, lists)
            known = (re.sub(r"\{\w+\}", "([^/]+)", endpoint), self.named.get(endpoint))
            self._known[endpoint.split("/")[2], endpoint.count("/")].append(known)

    def find(self, method: str, path: str) -> tuple[Operation, Sequence[str]]:
        """Return the operation and the ids in its path; StripeError 404, or 501 if Stripe has it."""
        for pattern, operation in self._known.get((path.split("/")[2], path.count("/")), ()):
            if match := re.fullmatch(pattern, f"{method} {path}"):
                if operation is None:
                    raise unsimulated(f"{method} {path}")
                return operation, match.groups()
        message = f"Unrecognized request URL ({method}: {path}). See https://stripe.com/docs."
        raise StripeError(404, message)


def _actions() -> dict[str, Callable[..., Json]]:
    found: dict[str, Callable[..., Json]] = {}
    for name, kind in KINDS.items():
        for verb in kind.verbs:
            template, act = VERBS[verb]
            found[template.format(UNDER.get(name, "") + name)] = partial(act, name)
    found["GET /v1/payment_methods/*"] = partial(resources.retrieve, "payment_methods")
    for module in (customers, invoices, lines, webhooks):
        found.update(module.ACTIONS)
    return found
