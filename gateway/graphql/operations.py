"""Runs operations: admitted, executed, answered; every transport goes through here."""

import copy
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from typing import Any

import strawberry
from graphql import GraphQLError, OperationType

from gateway.graphql import answers
from gateway.graphql.admission import Admission, Admitted, Prepared
from gateway.graphql.answers import Body, Explain
from gateway.graphql.caller import Caller
from gateway.graphql.documents import Invalid
from gateway.graphql.executor import executor_of
from gateway.graphql.params import Params
from gateway.graphql.stopping import finish


class Operations:
    """Operations on *schema*, as *admission* lets them in.

    *explain* has the words for exceptions that are expected; all others are masked.
    """

    def __init__(self, schema: strawberry.Schema, admission: Admission, explain: Explain) -> None:
        self.schema = _with_prepared_documents(schema, admission)
        self._admission = admission
        self._explain = explain

    async def execute(
        self, params: Params, caller: Caller, kinds: Collection[OperationType]
    ) -> Body:
        """The one answer to a query or mutation; a mutation is done to its end even if nobody waits."""
        try:
            admitted = await self._admission.admit(params, caller, kinds)
            return await self._answer(admitted, params, caller)
        except Exception as error:  # noqa: BLE001 nothing may leave unmasked
            return self._stopped(error, caller)

    async def stream(
        self, params: Params, caller: Caller, kinds: Collection[OperationType]
    ) -> AsyncGenerator[Body, None]:
        """Each answer to a subscription, or the one to a query or mutation."""
        try:
            admitted = await self._admission.admit(params, caller, kinds)
            if admitted.kind is not OperationType.SUBSCRIPTION:
                yield await self._answer(admitted, params, caller)
                return
            Prepared.document.set(admitted.document.ast)
            arguments = _arguments(params, caller)
            results: Any = await self.schema.stream(admitted.text, **arguments)
            async with aclosing(results):
                async for result in results:
                    actual = admitted.actual(result.data)
                    yield self._executed(result, admitted.receipt(actual), caller)
                    await self._admission.pay_event(caller, actual)
            beside = caller.surcharge(arguments["context_value"])
            self._admission.give_back(admitted, caller, admitted.cost + beside)
        except Exception as error:  # noqa: BLE001 nothing may leave unmasked
            yield self._stopped(error, caller)

    async def _answer(self, admitted: Admitted, params: Params, caller: Caller) -> Body:
        Prepared.document.set(admitted.document.ast)
        arguments = _arguments(params, caller)
        executing = self.schema.execute(admitted.text, **arguments)
        result = await (finish(executing) if admitted.kind is OperationType.MUTATION else executing)
        actual = admitted.actual(result.data) + caller.surcharge(arguments["context_value"])
        self._admission.give_back(admitted, caller, actual)
        return self._executed(result, admitted.receipt(actual), caller)

    def _executed(self, result: Any, cost: dict[str, Any], caller: Caller) -> Body:
        body = answers.executed(result, self._explain, suggestions=caller.introspects)
        if "data" in body:
            body["extensions"] = {**body.get("extensions", {}), "cost": cost}
        return body

    def _stopped(self, error: Exception, caller: Caller) -> Body:
        if isinstance(error, GraphQLError | Invalid):
            errors = error.errors if isinstance(error, Invalid) else [error]
            return answers.refused(errors, self._explain, suggestions=caller.introspects)
        return answers.failed(error, self._explain)


def _arguments(params: Params, caller: Caller) -> dict[str, Any]:
    return {
        "variable_values": params.variables,
        "context_value": caller.context(),
        "operation_name": params.operation_name,
        "operation_extensions": params.extensions,
    }


def _with_prepared_documents(schema: strawberry.Schema, admission: Admission) -> strawberry.Schema:
    """A copy of *schema*, which may serve elsewhere as it is, that runs what *admission* prepared."""
    prepared = copy.copy(schema)
    prepared.extensions = (*schema.extensions, Prepared)
    core = prepared._schema  # noqa: SLF001 shown nowhere else
    prepared.execution_context_class = executor_of(core, admission.limits.seconds)
    # Strawberry logs errors with their text and traceback; `answers` logs faults without either.
    prepared.process_errors = lambda *_: None  # type: ignore[method-assign]
    return prepared
