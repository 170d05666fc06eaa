"""Admits operations: finds, parses, bounds and validates the document, checks permissions, charges the cost.

Work is charged before it is done and corrected after it, whoever leaves early: the preparation of a document that
is not known, the objects of the answer, and lookups of ids that may be invented.
"""

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from graphql import ExecutionResult, GraphQLSchema, OperationType

from gateway.auth.caller import Caller
from gateway.graphql.admission.documents import Document, DocumentCache, Operation
from gateway.graphql.admission.limits import Limits, count_variable_values
from gateway.graphql.admission.persisted import PersistedDocuments
from gateway.graphql.admission.rate_limiter import CostLimiter, ThrottleStatus
from gateway.graphql.errors import MAX_NAME_LENGTH, request_error
from gateway.graphql.request_params import RequestParams

# One point is about 0.1 ms of work; the worst documents take 2 ms in 100 characters.
MIN_PREPARATION_COST = 20
CHARACTERS_PER_POINT = 5
VALUES_PER_POINT = 50  # of the variables, which are coerced
CONTAINERS = frozenset({dict, list})


@dataclass(frozen=True, slots=True)
class AdmittedOperation:
    """An *operation* of *document* that may run, and what was *charged* for it; it costs at least *minimum*."""

    document: Document
    operation: Operation
    requested_cost: int
    minimum: int
    charged: int
    throttle_status: ThrottleStatus

    @property
    def operation_type(self) -> OperationType:
        """Query, mutation or subscription."""
        return self.operation.type

    def actual_cost(self, result: ExecutionResult) -> int:
        """Return the cost of *result*, which may exceed the requested cost.

        With errors it is not less: a null may stand where a thousand objects were made.
        """
        least = self.requested_cost if result.errors else self.operation.cost.fixed
        return max(least, count_objects(result.data))

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

    async def admit(
        self, params: RequestParams, caller: Caller, allowed_types: Collection[OperationType]
    ) -> AdmittedOperation:
        """Return the operation of *params* if *caller* may run it now and it is one of *allowed_types*."""
        if len(params.operation_name or "") > MAX_NAME_LENGTH:
            raise request_error(
                "BAD_REQUEST", f"`operationName` has more than {MAX_NAME_LENGTH} characters."
            )
        text = await self._persisted.find_text(params, ad_hoc=caller.may_send_ad_hoc)
        document = self._documents.get(text)
        prepaid = 0
        if document is None:
            prepaid = await self._charge_preparation(text, caller)
            document = await self._documents.prepare(
                text, group=caller.group or caller.name, suggestions=caller.may_introspect
            )
        operation = document.operation(params.operation_name)
        _check_allowed(operation, caller, allowed_types)
        variables = params.variables or {}
        minimum = prepaid + count_variable_values(variables, self.limits) // VALUES_PER_POINT
        cost = self._evaluate(operation, variables)
        reserved = caller.lookup_cost and caller.lookup_cost * operation.lookups.count(
            variables, caller.own_ids
        )
        charged = max(cost, minimum) + reserved
        status = await self._charge(caller, charged - prepaid)
        await self._persisted.store(params)
        status = replace(status, available=min(status.available + reserved, status.maximum))
        return AdmittedOperation(document, operation, cost, minimum, charged, status)

    def settle(self, admitted: AdmittedOperation, caller: Caller, actual: int) -> None:
        """Charge or refund the difference between what *admitted* was charged and its *actual* cost."""
        self._cost_limiter.settle(caller, max(actual, admitted.minimum) - admitted.charged)

    async def charge_event(self, caller: Caller, actual: int) -> None:
        """Charge a subscription event of cost *actual*; wait until the bucket covers it."""
        while True:
            status = await self._cost_limiter.charge(caller, actual)
            if not status.retry_after:
                return
            await asyncio.sleep(status.retry_after)

    async def _charge_preparation(self, text: str, caller: Caller) -> int:
        """Charge the preparation of *text*; the first operation of a valid document costs at least that."""
        cost = max(MIN_PREPARATION_COST, len(text) // CHARACTERS_PER_POINT)
        await self._charge(caller, cost)
        return cost

    def _evaluate(self, operation: Operation, variables: dict[str, Any]) -> int:
        cost, values = operation.cost.evaluate(variables, self.limits.page_size)
        if cost > self.limits.cost or values > self.limits.values:
            raise request_error(
                "QUERY_TOO_COMPLEX",
                f"This would cost {cost} with {values} values; {self.limits.cost} with {self.limits.values} is the"
                " most. Ask for shorter pages.",
                cost={"requestedQueryCost": cost, "maximumQueryCost": self.limits.cost},
            )
        return cost

    async def _charge(self, caller: Caller, cost: int) -> ThrottleStatus:
        status = await self._cost_limiter.charge(caller, cost)
        if status.retry_after:
            raise request_error(
                "RATE_LIMITED",
                f"The allowance is used up; try again in {status.retry_after} s.",
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
    if operation.introspects and not operation.only_introspects:
        raise request_error(
            "QUERY_TOO_COMPLEX", "Ask for the schema in an operation that asks for nothing else."
        )


_TYPE_NOT_ALLOWED = {
    OperationType.MUTATION: ("METHOD_NOT_ALLOWED", "Send mutations by POST."),
    OperationType.SUBSCRIPTION: (
        "SUBSCRIPTION_NEEDS_STREAM",
        "Subscribe over WebSocket (graphql-transport-ws), or with Accept: text/event-stream.",
    ),
}
