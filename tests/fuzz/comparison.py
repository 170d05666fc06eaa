"""Runs random operations by the plan executor and by graphql-core's own, and compares everything that is answered."""

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

from graphql import (
    DocumentNode,
    ExecutionResult,
    Executor,
    GraphQLSchema,
    NoUnusedVariablesRule,
    execute,
    parse,
    specified_rules,
    subscribe,
    validate,
)
from strawberry.execution.is_awaitable import optimized_is_awaitable
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from gateway.graphql.execution.executor import plan_executor_class
from tests.fuzz.random_document import VARIABLES, random_document
from tests.fuzz.random_schema import Built, build_random_schema
from tests.fuzz.sick_values import Fault

OPERATIONS = ("query", "query", "query", "mutation", "subscription")
SICKNESS = (0.0, 0.03, 0.1, 0.2)
RULES = [rule for rule in specified_rules if rule is not NoUnusedVariablesRule]


@dataclass
class Figures:
    """What was compared, and what differed: seed, document and variables, with both answers."""

    counts: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)


async def compare_schema(seed: int, documents: int, figures: Figures) -> None:
    """Compare *documents* valid documents on the schema number *seed*; add to *figures*."""
    choose = Random(seed)
    built = build_random_schema(seed, choose.choice(SICKNESS))
    executor = plan_executor_class(built.planned)
    figures.counts["schemas"] += 1
    valid = 0
    for _ in range(documents * 20):
        operation = choose.choice(OPERATIONS)
        text = random_document(built.planned, operation, choose)
        document = parse(text)
        if validate(built.planned, document, RULES):
            continue
        await _compare_document(built, operation, document, executor, choose, figures)
        if (valid := valid + 1) == documents:
            break
    figures.counts["documents"] += valid


async def _compare_document(
    built: Built,
    operation: str,
    document: DocumentNode,
    executor: type[Executor[Any]],
    choose: Random,
    figures: Figures,
) -> None:
    for variables in choose.sample(VARIABLES * 2, len(VARIABLES) * 2):  # a new plan, and a used one
        expected = await _answers(
            built,
            operation,
            document,
            variables,
            built.stock,
            StrawberryGraphQLCoreExecutionContext,
        )
        actual = await _answers(built, operation, document, variables, built.planned, executor)
        figures.counts[f"runs of a {operation}"] += 1
        figures.counts["answers with errors"] += "[]" not in expected[-1:]
        if actual != expected:
            assert document.loc
            text = document.loc.source.body
            figures.differences.append(
                f"seed {built.seed}: {text}\n{variables}\nexpected {expected}\nactual   {actual}"
            )


async def _answers(
    built: Built,
    operation: str,
    document: DocumentNode,
    variables: dict[str, Any],
    schema: GraphQLSchema,
    executor: type[Executor[Any]],
) -> list[str]:
    run: Any = subscribe if operation == "subscription" else execute
    result = run(
        schema,
        document,
        root_value=built.root_value(operation),
        variable_values=variables,
        executor_class=executor,
        is_awaitable=optimized_is_awaitable,
    )
    if optimized_is_awaitable(result):
        result = await result
    if isinstance(result, ExecutionResult):
        return _shown(result)
    answers = []
    try:
        async for event in result:
            answers += _shown(event)
    except Fault as error:  # the stream itself broke
        answers.append(str(error))
    return answers


def _shown(result: ExecutionResult) -> list[str]:
    """Return the data with the order of its keys, and the errors with theirs."""
    return [repr(result.data), repr([error.formatted for error in result.errors or []])]
