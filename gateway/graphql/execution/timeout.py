"""Execution with a timeout: an operation, or one event of a subscription, is cancelled with its resolvers."""

import asyncio
from collections.abc import Awaitable
from typing import Any, ClassVar

from graphql import ExecutionResult, GraphQLError, GraphQLSchema, OperationType
from graphql.execution.collect_fields import collect_fields
from graphql.pyutils import AwaitableOrValue

from gateway.graphql.execution.executor import PlanExecutor
from gateway.graphql.execution.simple_fields import find_simple_fields

TIMEOUT_MESSAGE = "This took too long and was stopped; ask for less."


class TimeoutExecutor(PlanExecutor):
    """Cancels an execution after *timeout_seconds*.

    A query or mutation then fails as a whole. A subscription's event is null, and the subscription goes on.
    """

    timeout_seconds: ClassVar[float]

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


def executor_class(schema: GraphQLSchema, timeout_seconds: float) -> type[TimeoutExecutor]:
    """Return an executor for *schema* with this timeout."""
    attributes = {
        "simple_fields": find_simple_fields(schema),
        "timeout_seconds": timeout_seconds,
    }
    return type("SchemaExecutor", (TimeoutExecutor,), attributes)
