"""Executing within a time: an operation, or one event of a subscription, is stopped with all of its resolvers."""

import asyncio
from collections.abc import Awaitable
from typing import Any, ClassVar

from graphql import ExecutionResult, GraphQLError, GraphQLSchema, OperationType
from graphql.execution.collect_fields import collect_fields
from graphql.pyutils import AwaitableOrValue

from gateway.graphql.execution.executor import PlannedExecutor
from gateway.graphql.execution.simple_fields import plain_of

LATE = "This took too long and was stopped; ask for less."


class Executor(PlannedExecutor):
    """Cancels what takes longer than *seconds*.

    A late query or mutation fails as a whole. A late event is null, and its subscription goes on.
    """

    seconds: ClassVar[float]

    def execute_operation(self, serially: bool | None = None) -> AwaitableOrValue[Any]:
        """The result of the operation, or of the event that the root value is."""
        executing = super().execute_operation(serially)
        return self._in_time(executing) if self.is_awaitable(executing) else executing

    async def _in_time(self, executing: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self.seconds):
                return await executing
        except TimeoutError:
            late = GraphQLError(LATE, path=self._place(), extensions={"code": "TIMEOUT"})
            return ExecutionResult(None, [late])

    def _place(self) -> list[str | int] | None:
        """Where an error about a whole event stands: at the one field of its subscription."""
        root = self.schema.subscription_type
        if root is None or self.operation.operation is not OperationType.SUBSCRIPTION:
            return None
        chosen = collect_fields(
            self.schema, self.fragments, self.variable_values, root, self.operation
        )
        return [next(iter(chosen.grouped_field_set))]


def executor_of(schema: GraphQLSchema, seconds: float) -> type[Executor]:
    """An executor for *schema* that takes *seconds* at most."""
    return type("SchemaExecutor", (Executor,), {"plain": plain_of(schema), "seconds": seconds})
