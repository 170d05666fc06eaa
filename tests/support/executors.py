"""Choice of the GraphQL executor: the gateway's own, or the stock one (see gateway/graphql/execution).

The choice stands in the environment, so that the processes that a test starts make it as well.
"""

import os
from typing import Any

from graphql import Executor, GraphQLSchema
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from gateway.graphql import runner
from gateway.graphql.execution.timeout import executor_class, with_timeout

VARIABLE = "TEST_EXECUTOR"
EXECUTORS = ("plan", "stock")


def stock_executor_class(_: GraphQLSchema, timeout_seconds: float) -> type[Executor[Any]]:
    """Return graphql-core's executor as Strawberry uses it, with this timeout."""
    return with_timeout(StrawberryGraphQLCoreExecutionContext, timeout_seconds)


def use_chosen_executor() -> None:
    """Use the executor that the environment names in gateways made by this process from now on."""
    stock = os.environ.get(VARIABLE) == "stock"
    runner.executor_class = stock_executor_class if stock else executor_class
