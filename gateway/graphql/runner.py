"""Runs operations: admitted, executed, answered; every transport goes through here."""

from collections.abc import AsyncGenerator, Callable, Collection, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager
from typing import Any, NamedTuple

import strawberry
from graphql import ExecutionResult, GraphQLError, OperationType, execute, subscribe
from strawberry.execution.is_awaitable import optimized_is_awaitable

from gateway.auth.caller import Caller
from gateway.graphql import responses
from gateway.graphql.admission.admission import Admission, Admitted
from gateway.graphql.admission.documents import Invalid
from gateway.graphql.execution.timeout import executor_of
from gateway.graphql.request_params import Params
from gateway.graphql.responses import Body, Explain
from gateway.graphql.tasks import finish

Report = Callable[[Any], AbstractContextManager[Callable[[], Body]]]
"""Opened around an operation with its context: makes what each answer's ``extensions`` tell of it."""


@contextmanager
def no_report(_context: Any) -> Iterator[Callable[[], Body]]:
    """Nothing to tell."""
    yield dict


class Answer(NamedTuple):
    """The *body* of an answer, the *kind* of operation that it answers, and the *context* that it was made with.

    Both are None when nothing was let in.
    """

    body: Body
    kind: OperationType | None = None
    context: Any = None


class Operations:
    """Operations on *schema*, as *admission* lets them in.

    *explain* has the words for exceptions that are expected; all others are masked. *report* adds to what
    answers tell of themselves. They are run by graphql-core itself: Strawberry's ``execute`` would parse and
    validate again, and runs extensions, of which *schema* can have none here.
    """

    def __init__(
        self,
        schema: strawberry.Schema,
        admission: Admission,
        explain: Explain,
        report: Report = no_report,
    ) -> None:
        self.schema = schema
        self._core = schema._schema  # noqa: SLF001 shown nowhere else
        self._executor = executor_of(self._core, admission.limits.seconds)
        self._admission = admission
        self._explain = explain
        self._report = report

    async def execute(
        self, params: Params, caller: Caller, kinds: Collection[OperationType]
    ) -> Answer:
        """The one answer to a query or mutation; a mutation is done to its end even if nobody waits."""
        try:
            admitted = await self._admission.admit(params, caller, kinds)
            context = caller.context()
            body = await self._answer(admitted, params, caller, context)
            return Answer(body, admitted.kind, context)
        except Exception as error:  # noqa: BLE001 nothing may leave unmasked
            return Answer(self._stopped(error, caller))

    async def stream(
        self, params: Params, caller: Caller, kinds: Collection[OperationType]
    ) -> AsyncGenerator[Body, None]:
        """Each answer to a subscription, or the one to a query or mutation."""
        try:
            admitted = await self._admission.admit(params, caller, kinds)
            if admitted.kind is not OperationType.SUBSCRIPTION:
                yield await self._answer(admitted, params, caller, caller.context())
                return
            context = caller.context()
            with self._report(context) as figures:
                async with aclosing(await self._results(admitted, params, context)) as results:
                    async for result in results:
                        actual = admitted.actual(result.data)
                        yield self._told(result, caller, admitted.receipt(actual), figures)
                        await self._admission.pay_event(caller, actual)
            beside = caller.surcharge(context)
            self._admission.give_back(admitted, caller, admitted.cost + beside)
        except Exception as error:  # noqa: BLE001 nothing may leave unmasked
            yield self._stopped(error, caller)

    async def _answer(
        self, admitted: Admitted, params: Params, caller: Caller, context: Any
    ) -> Body:
        with self._report(context) as figures:
            executing = self._executed(admitted, params, context)
            result = await (
                finish(executing) if admitted.kind is OperationType.MUTATION else executing
            )
            actual = admitted.actual(result.data) + caller.surcharge(context)
            self._admission.give_back(admitted, caller, actual)
            return self._told(result, caller, admitted.receipt(actual), figures)

    async def _executed(self, admitted: Admitted, params: Params, context: Any) -> ExecutionResult:
        result: Any = execute(**self._run(admitted, params, context))
        if optimized_is_awaitable(result):
            result = await result
        return result  # type: ignore[no-any-return]

    async def _results(
        self, admitted: Admitted, params: Params, context: Any
    ) -> AsyncGenerator[ExecutionResult, None]:
        """What the events of a subscription come to; `Invalid` when it could not begin."""
        results: Any = subscribe(**self._run(admitted, params, context))
        if optimized_is_awaitable(results):
            results = await results
        if isinstance(results, ExecutionResult):
            raise Invalid(results.errors or [])
        return results  # type: ignore[no-any-return]

    def _run(self, admitted: Admitted, params: Params, context: Any) -> dict[str, Any]:
        return {
            "schema": self._core,
            "document": admitted.document.ast,
            "variable_values": params.variables,
            "context_value": context,
            "operation_name": params.operation_name,
            "executor_class": self._executor,
            "is_awaitable": optimized_is_awaitable,
            "plans": admitted.operation.plans,
        }

    def _told(
        self,
        result: ExecutionResult,
        caller: Caller,
        cost: Body,
        figures: Callable[[], Body],
    ) -> Body:
        body = responses.executed(result, self._explain, suggestions=caller.introspects)
        if "data" in body:
            body["extensions"] = {**figures(), "cost": cost}
        return body

    def _stopped(self, error: Exception, caller: Caller) -> Body:
        if isinstance(error, GraphQLError | Invalid):
            errors = error.errors if isinstance(error, Invalid) else [error]
            return responses.refused(errors, self._explain, suggestions=caller.introspects)
        return responses.failed(error, self._explain)
