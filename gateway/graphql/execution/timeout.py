"""The executor of the GraphQL endpoint: cancels an operation, or a subscription's event, after a timeout."""

import asyncio
from collections.abc import Awaitable
from typing import Any, ClassVar

from graphql import (
    ExecutionResult,
    Executor,
    GraphQLError,
    GraphQLOutputType,
    GraphQLResolveInfoHelpers,
    GraphQLSchema,
    OperationType,
)
from graphql.execution.collect_fields import FieldDetailsList, collect_fields
from graphql.pyutils import AwaitableOrValue, Path

from gateway.graphql.execution.executor import plan_executor_class

MAX_LOCATED_ERRORS = 50
TIMEOUT_MESSAGE = "This took too long and was stopped; ask for less."


class TimeoutExecutor(Executor[Any]):
    """Mixin for an executor: cancels an execution, with its resolvers, after *timeout_seconds*.

    A query or mutation then fails as a whole. A subscription's event is null, and the subscription goes on.
    Of many errors only the first `MAX_LOCATED_ERRORS` have locations: each counts the document's lines.
    """

    timeout_seconds: ClassVar[float]
    errors = 0

    @property
    def async_helpers(self) -> GraphQLResolveInfoHelpers:
        """Made on access: a stored one would form a reference cycle with the executor."""
        return GraphQLResolveInfoHelpers(self.gather_async_work, self.track_async_work)

    @async_helpers.setter
    def async_helpers(self, _: GraphQLResolveInfoHelpers) -> None:
        pass

    def handle_field_error(
        self,
        raw_error: Exception,
        return_type: GraphQLOutputType,
        field_details_list: FieldDetailsList,
        path: Path,
    ) -> None:
        """Locate an error, raise it in a non-null field, and collect it otherwise."""
        self.errors += 1
        located = field_details_list if self.errors <= MAX_LOCATED_ERRORS else []
        super().handle_field_error(raw_error, return_type, located, path)

    def execute_operation(self, serially: bool | None = None) -> AwaitableOrValue[Any]:
        """Return the result of the operation, or of the event that is the root value."""
        execution = super().execute_operation(serially)
        return self._with_timeout(execution) if self.is_awaitable(execution) else execution

    async def _with_timeout(self, execution: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self.timeout_seconds):
                return await execution
        except TimeoutError:
            error = GraphQLError(
                TIMEOUT_MESSAGE, path=self._event_path(), extensions={"code": "TIMEOUT"}
            )
            return ExecutionResult(None, [error])

    def _event_path(self) -> list[str | int] | None:
        """Return the path of a subscription's only root field; None for another operation."""
        root = self.schema.subscription_type
        if root is None or self.operation.operation is not OperationType.SUBSCRIPTION:
            return None
        collected = collect_fields(
            self.schema, self.fragments, self.variable_values, root, self.operation
        )
        return [next(iter(collected.grouped_field_set))]


def executor_class(schema: GraphQLSchema, timeout_seconds: float) -> type[Executor[Any]]:
    """Return the executor for *schema*: the plan executor, used nowhere else.

    With Strawberry's ``StrawberryGraphQLCoreExecutionContext`` in its place, ``executor``, ``plan`` and
    ``simple_fields`` can be deleted.
    """
    return with_timeout(plan_executor_class(schema), timeout_seconds)


def with_timeout(base: type[Executor[Any]], timeout_seconds: float) -> type[Executor[Any]]:
    """Return *base* with this timeout."""
    return type("GatewayExecutor", (TimeoutExecutor, base), {"timeout_seconds": timeout_seconds})
