"""Admits and executes operations, and builds their response bodies, for every transport."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol

from graphql import (
    ExecutionResult,
    GraphQLError,
    GraphQLSchema,
    OperationType,
    execute,
    execute_sync,
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


class OperationMeter(Protocol):
    """Measures one operation."""

    def take_cost(self) -> int:
        """Return the cost of its work since the last call, beyond the objects of its responses."""

    def entries(self) -> ResponseBody:
        """Return ``extensions`` entries for a response."""


MeterOperation = Callable[[Any], AbstractContextManager[OperationMeter]]
"""Opens a context manager around an operation, given its context."""


class NoMeter:
    """A meter of operations that cost no more than their objects."""

    def take_cost(self) -> int:
        """Return nothing."""
        return 0

    def entries(self) -> ResponseBody:
        """Return no entries."""
        return {}


@contextmanager
def no_meter(_context: Any) -> Iterator[OperationMeter]:
    """Measure nothing."""
    yield NoMeter()


class OperationResponse(NamedTuple):
    """The *body* of a response, and the type and context of its operation; both None when none was admitted."""

    body: ResponseBody
    operation_type: OperationType | None = None
    context: Any = None


class OperationRunner:
    """Runs the operations on *schema* that *admission* admits.

    *map_error* maps expected exceptions to public errors; all others are masked. *meter* measures each
    operation. Operations run by graphql-core's ``execute``: Strawberry's would parse
    and validate again, and run schema extensions, of which *schema* must have none.
    """

    def __init__(
        self,
        schema: GraphQLSchema,
        admission: Admission,
        map_error: MapError,
        meter: MeterOperation = no_meter,
    ) -> None:
        self._schema = schema
        self._executor = executor_class(schema, admission.limits.timeout_seconds)
        self._admission = admission
        self._map_error = map_error
        self._meter = meter
        self._introspection = asyncio.Lock()

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
            return OperationResponse(self._error_body(error))

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
            async with aclosing(self._events(admitted, params, caller, context)) as bodies:
                async for body in bodies:
                    yield body
        except Exception as error:  # noqa: BLE001 nothing may leave unmasked
            yield self._error_body(error)

    async def _events(
        self, admitted: AdmittedOperation, params: RequestParams, caller: Caller, context: Any
    ) -> AsyncGenerator[ResponseBody, None]:
        with self._meter(context) as meter:
            unpaid = 0
            try:
                results = await self._subscribe(admitted, params, caller, context)
                async with aclosing(results):
                    async for result in results:
                        unpaid = admitted.actual_cost(result) + meter.take_cost()
                        yield self._response_body(result, admitted, meter, unpaid)
                        await self._admission.charge_event(caller, unpaid)
                        unpaid = 0
            finally:  # a client that leaves pays for the event that it got, and for one that was being made
                unpaid += admitted.requested_cost + meter.take_cost()
                self._admission.settle(admitted, caller, unpaid)

    async def _execute_once(
        self, admitted: AdmittedOperation, params: RequestParams, caller: Caller, context: Any
    ) -> ResponseBody:
        with self._meter(context) as meter:
            execution = self._execute(admitted, params, caller, context)
            if admitted.operation_type is OperationType.MUTATION:
                execution = run_to_completion(execution)
            actual = admitted.requested_cost
            try:
                result = await execution
                actual = admitted.actual_cost(result)
            finally:  # a client that has left pays for everything it asked for
                actual += meter.take_cost()
                self._admission.settle(admitted, caller, actual)
            return self._response_body(result, admitted, meter, actual)

    async def _execute(
        self, admitted: AdmittedOperation, params: RequestParams, caller: Caller, context: Any
    ) -> ExecutionResult:
        arguments = self._execution_arguments(admitted, params, caller, context)
        if admitted.operation.introspects:
            # It needs neither loop nor context, and takes longer than others may wait.
            del arguments["executor_class"], arguments["is_awaitable"]
            async with self._introspection:
                return await asyncio.to_thread(partial(execute_sync, **arguments))
        result: Any = execute(**arguments)
        if optimized_is_awaitable(result):
            result = await result
        return result  # type: ignore[no-any-return]

    async def _subscribe(
        self, admitted: AdmittedOperation, params: RequestParams, caller: Caller, context: Any
    ) -> AsyncGenerator[ExecutionResult, None]:
        """Return the results of a subscription's events; InvalidDocument when it cannot start."""
        results: Any = subscribe(**self._execution_arguments(admitted, params, caller, context))
        if optimized_is_awaitable(results):
            results = await results
        if isinstance(results, ExecutionResult):
            raise InvalidDocument(results.errors or [])
        return results  # type: ignore[no-any-return]

    def _execution_arguments(
        self, admitted: AdmittedOperation, params: RequestParams, caller: Caller, context: Any
    ) -> dict[str, Any]:
        return {
            "schema": self._schema,
            "document": admitted.document.ast,
            "variable_values": params.variables,
            "context_value": context,
            "operation_name": params.operation_name,
            "executor_class": self._executor,
            "is_awaitable": optimized_is_awaitable,
            "hide_suggestions": not caller.may_introspect,
        }

    def _response_body(
        self,
        result: ExecutionResult,
        admitted: AdmittedOperation,
        meter: OperationMeter,
        actual: int,
    ) -> ResponseBody:
        body = responses.from_result(result, self._map_error)
        if "data" in body:
            body["extensions"] = {**meter.entries(), "cost": admitted.cost_extension(actual)}
        return body

    def _error_body(self, error: Exception) -> ResponseBody:
        if isinstance(error, GraphQLError | InvalidDocument):
            errors = error.errors if isinstance(error, InvalidDocument) else [error]
            return responses.from_errors(errors, self._map_error)
        return responses.from_exception(error, self._map_error)
