"""Lets an operation in: its text found, parsed, bounded and validated; allowed, priced, paid for."""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from graphql import GraphQLSchema, OperationType

from gateway.auth.caller import Caller
from gateway.graphql.admission.documents import Document, Documents, Operation
from gateway.graphql.admission.limits import Limits
from gateway.graphql.admission.persisted import PersistedDocuments
from gateway.graphql.errors import request_error
from gateway.graphql.request_params import Params

# Callers whose refunds and debts are remembered. Tokens come and go: the oldest one's is forgotten.
MAX_REFUNDS = 10_000
CONTAINERS = frozenset({dict, list})


@dataclass(frozen=True, slots=True)
class Allowance:
    """A caller's bucket after a charge; *wait*: for how many seconds it was refused, 0 if it was not."""

    maximum: int
    available: int
    restore_rate: int
    wait: int = 0


class Allowances(Protocol):
    """Buckets of cost, one a caller."""

    async def spend(self, bucket: str, cost: int, refund: int = 0) -> Allowance:
        """Take *cost* from *bucket*, after giving *refund* back."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """An *operation* of *document* that may run, and what it was charged."""

    document: Document
    operation: Operation
    cost: int
    allowance: Allowance

    @property
    def kind(self) -> OperationType:
        """Whether it asks, changes or lasts."""
        return self.operation.kind

    def actual(self, data: object) -> int:
        """What the answer *data* came to, never more than what was charged."""
        return min(self.cost, max(self.operation.price.fixed, objects_in(data)))

    def receipt(self, actual: int) -> dict[str, Any]:
        """``extensions.cost`` of an answer that came to *actual*, in the words that Shopify gave it."""
        return {
            "requestedQueryCost": self.cost,
            "actualQueryCost": actual,
            "throttleStatus": {
                "maximumAvailable": self.allowance.maximum,
                "currentlyAvailable": self.allowance.available,
                "restoreRate": self.allowance.restore_rate,
            },
        }


class Admission:
    """Decides what runs. Everything it refuses is a GraphQLError, or several in `Invalid`."""

    def __init__(
        self,
        schema: GraphQLSchema,
        limits: Limits,
        allowances: Allowances,
        persisted: PersistedDocuments,
    ) -> None:
        self.limits = limits
        self._documents = Documents(schema, limits)
        self._allowances = allowances
        self._persisted = persisted
        self._refunds: OrderedDict[str, int] = OrderedDict()

    async def admit(
        self, params: Params, caller: Caller, kinds: Collection[OperationType]
    ) -> Admitted:
        """The operation of *params* if *caller* may run it now, as one of *kinds*."""
        text = await self._persisted.text(params, ad_hoc=caller.ad_hoc)
        document = await self._documents.read(text, suggestions=caller.introspects)
        operation = document.operation(params.operation_name)
        _must_be_allowed(operation, caller, kinds)
        cost = operation.price.of(params.variables or {}, self.limits.page)
        if cost > self.limits.cost:
            raise request_error(
                "QUERY_TOO_COMPLEX",
                f"This would cost {cost}, and {self.limits.cost} is the most; ask for shorter pages.",
                cost={"requestedQueryCost": cost, "maximumQueryCost": self.limits.cost},
            )
        allowance = await self._charge(caller, cost)
        await self._persisted.remember(params)
        return Admitted(document, operation, cost, allowance)

    def give_back(self, admitted: Admitted, caller: Caller, actual: int) -> None:
        """Return what an answer that came to *actual* did not use, with the caller's next charge."""
        unused = admitted.cost - actual
        if unused:
            self._refunds[caller.name] = self._refunds.get(caller.name, 0) + unused
        if len(self._refunds) > MAX_REFUNDS:
            self._refunds.popitem(last=False)

    async def pay_event(self, caller: Caller, actual: int) -> None:
        """Charge an event that came to *actual*; return once the allowance covered it."""
        while True:
            allowance = await self._allowances.spend(caller.name, actual)
            if not allowance.wait:
                return
            await asyncio.sleep(allowance.wait)

    async def _charge(self, caller: Caller, cost: int) -> Allowance:
        refund = self._refunds.pop(caller.name, 0)
        allowance = await self._allowances.spend(caller.name, cost, refund)
        if allowance.wait:
            raise request_error(
                "RATE_LIMITED",
                f"The allowance is used up; ask again in {allowance.wait} s.",
                retryAfter=allowance.wait,
            )
        return allowance


def objects_in(data: object) -> int:
    """How many objects an answer holds, which is what it cost."""
    parts: Iterable[object]
    if type(data) is dict:
        count, parts = 1, data.values()
    elif type(data) is list:
        count, parts = 0, data
    else:
        return 0
    for each in parts:
        if type(each) in CONTAINERS:
            count += objects_in(each)
    return count


def _must_be_allowed(
    operation: Operation, caller: Caller, kinds: Collection[OperationType]
) -> None:
    if operation.kind not in kinds:
        raise request_error(*_ELSEWHERE[operation.kind])
    if operation.introspects and not caller.introspects:
        raise request_error("INTROSPECTION_DISABLED", "This token may not ask for the schema.")


_ELSEWHERE = {
    OperationType.MUTATION: ("METHOD_NOT_ALLOWED", "Send mutations by POST."),
    OperationType.SUBSCRIPTION: (
        "SUBSCRIPTION_NEEDS_STREAM",
        "Subscribe over WebSocket (graphql-transport-ws), or with Accept: text/event-stream.",
    ),
}
