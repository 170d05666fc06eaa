"""Admits operations: finds, parses, bounds and validates the document, checks permissions, charges the cost."""

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache
from graphql import GraphQLSchema, OperationType

from gateway.auth.caller import Caller
from gateway.graphql.admission.documents import Document, DocumentCache, Operation
from gateway.graphql.admission.limits import Limits
from gateway.graphql.admission.persisted import PersistedDocuments
from gateway.graphql.admission.rate_limiter import CostLimiter, ThrottleStatus
from gateway.graphql.errors import request_error
from gateway.graphql.request_params import RequestParams

# Callers with a pending refund. Tokens come and go; the oldest refund is dropped first.
MAX_PENDING_REFUNDS = 10_000
CONTAINERS = frozenset({dict, list})


@dataclass(frozen=True, slots=True)
class AdmittedOperation:
    """An *operation* of *document* that may run, and its charge."""

    document: Document
    operation: Operation
    requested_cost: int
    throttle_status: ThrottleStatus

    @property
    def operation_type(self) -> OperationType:
        """Query, mutation or subscription."""
        return self.operation.type

    def actual_cost(self, data: object) -> int:
        """Return the cost of the result *data*, at most the requested cost."""
        return min(self.requested_cost, max(self.operation.cost.fixed, count_objects(data)))

    def cost_extension(self, actual: int) -> dict[str, Any]:
        """Return ``extensions.cost`` of a response whose actual cost is *actual*, in Shopify's format."""
        return {
            "requestedQueryCost": self.requested_cost,
            "actualQueryCost": actual,
            "throttleStatus": {
                "maximumAvailable": self.throttle_status.maximum,
                "currentlyAvailable": self.throttle_status.available,
                "restoreRate": self.throttle_status.restore_rate,
            },
        }


class Admission:
    """Admits or rejects operations; a rejection is a GraphQLError, or several in `InvalidDocument`."""

    def __init__(
        self,
        schema: GraphQLSchema,
        limits: Limits,
        cost_limiter: CostLimiter,
        persisted: PersistedDocuments,
    ) -> None:
        self.limits = limits
        self._documents = DocumentCache(schema, limits)
        self._cost_limiter = cost_limiter
        self._persisted = persisted
        self._pending_refunds: LRUCache[str, int] = LRUCache(MAX_PENDING_REFUNDS)

    async def admit(
        self, params: RequestParams, caller: Caller, allowed_types: Collection[OperationType]
    ) -> AdmittedOperation:
        """Return the operation of *params* if *caller* may run it now and it is one of *allowed_types*."""
        text = await self._persisted.find_text(params, ad_hoc=caller.may_send_ad_hoc)
        document = await self._documents.get_or_prepare(text, suggestions=caller.may_introspect)
        operation = document.operation(params.operation_name)
        _check_allowed(operation, caller, allowed_types)
        cost = operation.cost.evaluate(params.variables or {}, self.limits.page_size)
        if cost > self.limits.cost:
            raise request_error(
                "QUERY_TOO_COMPLEX",
                f"This would cost {cost}, and {self.limits.cost} is the most; ask for shorter pages.",
                cost={"requestedQueryCost": cost, "maximumQueryCost": self.limits.cost},
            )
        throttle_status = await self._charge(caller, cost)
        await self._persisted.store(params)
        return AdmittedOperation(document, operation, cost, throttle_status)

    def refund(self, admitted: AdmittedOperation, caller: Caller, actual: int) -> None:
        """Refund the difference to the *actual* cost with the caller's next charge."""
        difference = admitted.requested_cost - actual
        if difference:
            self._pending_refunds[caller.name] = (
                self._pending_refunds.get(caller.name, 0) + difference
            )

    async def charge_event(self, caller: Caller, actual: int) -> None:
        """Charge a subscription event of cost *actual*; wait until the bucket covers it."""
        while True:
            status = await self._cost_limiter.charge(caller.name, actual)
            if not status.retry_after:
                return
            await asyncio.sleep(status.retry_after)

    async def _charge(self, caller: Caller, cost: int) -> ThrottleStatus:
        refund = self._pending_refunds.pop(caller.name, 0)
        status = await self._cost_limiter.charge(caller.name, cost, refund)
        if status.retry_after:
            raise request_error(
                "RATE_LIMITED",
                f"The allowance is used up; ask again in {status.retry_after} s.",
                retryAfter=status.retry_after,
            )
        return status


def count_objects(data: object) -> int:
    """Count the objects in a result, which is its actual cost."""
    items: Iterable[object]
    if type(data) is dict:
        count, items = 1, data.values()
    elif type(data) is list:
        count, items = 0, data
    else:
        return 0
    for item in items:
        if type(item) in CONTAINERS:
            count += count_objects(item)
    return count


def _check_allowed(
    operation: Operation, caller: Caller, allowed_types: Collection[OperationType]
) -> None:
    if operation.type not in allowed_types:
        raise request_error(*_TYPE_NOT_ALLOWED[operation.type])
    if operation.introspects and not caller.may_introspect:
        raise request_error("INTROSPECTION_DISABLED", "This token may not ask for the schema.")


_TYPE_NOT_ALLOWED = {
    OperationType.MUTATION: ("METHOD_NOT_ALLOWED", "Send mutations by POST."),
    OperationType.SUBSCRIPTION: (
        "SUBSCRIPTION_NEEDS_STREAM",
        "Subscribe over WebSocket (graphql-transport-ws), or with Accept: text/event-stream.",
    ),
}
