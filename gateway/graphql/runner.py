"""Admits and executes operations, and builds their response bodies, for every transport."""

from collections.abc import AsyncGenerator, Callable, Collection, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager
from typing import Any, NamedTuple

from graphql import (
    ExecutionResult,
    GraphQLError,
    GraphQLSchema,
    OperationType,
    execute,
    subscribe,
)
from strawberry.execution.is_awaitable import optimized_is_awaitable

from gateway.auth.caller import Caller
from gateway.graphql import responses
from gateway.graphql.admission.admission import Admission, AdmittedOperation
from gateway.graphql.admission.documents import InvalidDocument
from gateway.graphql.execution.timeout import executor_class
from gateway.graphql.request_params import RequestParams
from gateway.graphql.responses import MapError, ResponseBody
from gateway.graphql.tasks import run_to_completion

ResponseExtensions = Callable[[Any], AbstractContextManager[Callable[[], ResponseBody]]]
"""Opens a context manager around an operation, given its context; yields a function that returns
``extensions`` entries for each of its responses."""


@contextmanager
def no_extensions(_context: Any) -> Iterator[Callable[[], ResponseBody]]:
    """Add no entries."""
    yield dict


class OperationResponse(NamedTuple):
    """The *body* of a response, and the type and context of its operation; both None when none was admitted."""

    body: ResponseBody
    operation_type: OperationType | None = None
    context: Any = None


class OperationRunner:
    """Runs the operations on *schema* that *admission* admits.

    *map_error* maps expected exceptions to public errors; all others are masked. *extensions* adds entries
    to the responses' ``extensions``. Operations run by graphql-core's ``execute``: Strawberry's would parse
    and validate again, and run schema extensions, of which *schema* must have none.
    """

    def __init__(
        self,
        schema: GraphQLSchema,
        admission: Admission,
        map_error: MapError,
        extensions: ResponseExtensions = no_extensions,
    ) -> None:
        self._schema = schema
        self._executor = executor_class(schema, admission.limits.timeout_seconds)
        self._admission = admission
        self._map_error = map_error
        self._extensions = extensions

    async def execute(
        self, params: RequestParams, caller: Caller, allowed_types: Collection[OperationType]
    ) -> OperationResponse:
        """Run a query or mutation; a mutation runs to completion even when its client disconnects."""
        try:
            admitted = await self._admission.admit(params, caller, allowed_types)
            context = caller.new_context()
            body = await self._execute_once(admitted, params, caller, context)
            return OperationResponse(body, admitted.operation_type, context)
        except Exception as error:  # noqa: BLE001 nothing may leave unmasked
            return OperationResponse(self._error_body(error, caller))

    async def stream(
        self, params: RequestParams, caller: Caller, allowed_types: Collection[OperationType]
    ) -> AsyncGenerator[ResponseBody, None]:
        """Yield a body for each event of a subscription, or the only one of a query or mutation."""
        try:
            admitted = await self._admission.admit(params, caller, allowed_types)
            context = caller.new_context()
            if admitted.operation_type is not OperationType.SUBSCRIPTION:
                yield await self._execute_once(admitted, params, caller, context)
                return
            with self._extensions(context) as entries:
                async with aclosing(await self._subscribe(admitted, params, context)) as results:
                    async for result in results:
                        actual = admitted.actual_cost(result.data)
                        cost = admitted.cost_extension(actual)
                        yield self._response_body(result, caller, cost, entries)
                        await self._admission.charge_event(caller, actual)
            extra_cost = caller.extra_cost(context)
            self._admission.refund(admitted, caller, admitted.requested_cost + extra_cost)
        except Exception as error:  # noqa: BLE001 nothing may leave unmasked
            yield self._error_body(error, caller)

    async def _execute_once(
        self, admitted: AdmittedOperation, params: RequestParams, caller: Caller, context: Any
    ) -> ResponseBody:
        with self._extensions(context) as entries:
            execution = self._execute(admitted, params, context)
            if admitted.operation_type is OperationType.MUTATION:
                execution = run_to_completion(execution)
            result = await execution
            actual = admitted.actual_cost(result.data) + caller.extra_cost(context)
            self._admission.refund(admitted, caller, actual)
            return self._response_body(result, caller, admitted.cost_extension(actual), entries)

    async def _execute(
        self, admitted: AdmittedOperation, params: RequestParams, context: Any
    ) -> ExecutionResult:
        result: Any = execute(**self._execution_arguments(admitted, params, context))
        if optimized_is_awaitable(result):
            result = await result
        return result  # type: ignore[no-any-return]

    async def _subscribe(
        self, admitted: AdmittedOperation, params: RequestParams, context: Any
    ) -> AsyncGenerator[ExecutionResult, None]:
        """Return the results of a subscription's events; InvalidDocument when it cannot start."""
        results: Any = subscribe(**self._execution_arguments(admitted, params, context))
        if optimized_is_awaitable(results):
            results = await results
        if isinstance(results, ExecutionResult):
            raise InvalidDocument(results.errors or [])
        return results  # type: ignore[no-any-return]

    def _execution_arguments(
        self, admitted: AdmittedOperation, params: RequestParams, context: Any
    ) -> dict[str, Any]:
        return {
            "schema": self._schema,
            "document": admitted.document.ast,
            "variable_values": params.variables,
            "context_value": context,
            "operation_name": params.operation_name,
            "executor_class": self._executor,
            "is_awaitable": optimized_is_awaitable,
        }

    def _response_body(
        self,
        result: ExecutionResult,
        caller: Caller,
        cost: ResponseBody,
        entries: Callable[[], ResponseBody],
    ) -> ResponseBody:
        body = responses.from_result(result, self._map_error, suggestions=caller.may_introspect)
        if "data" in body:
            body["extensions"] = {**entries(), "cost": cost}
        return body

    def _error_body(self, error: Exception, caller: Caller) -> ResponseBody:
        if isinstance(error, GraphQLError | InvalidDocument):
            errors = error.errors if isinstance(error, InvalidDocument) else [error]
            return responses.from_errors(errors, self._map_error, suggestions=caller.may_introspect)
        return responses.from_exception(error, self._map_error)
