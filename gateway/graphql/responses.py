"""Builds and masks response bodies.

Every body that is sent over HTTP, SSE or WebSocket is made here, so that no unexpected exception of a
resolver, an extension or the endpoint itself can bypass the masking.
"""

import secrets
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from graphql import ExecutionResult, GraphQLError

from billing.logs import frames
from gateway.graphql.errors import request_error, shorten

log = structlog.get_logger()

ResponseBody = dict[str, Any]
MapError = Callable[[BaseException], GraphQLError | None]
"""Maps an expected exception to a public error; None for an unexpected one."""

MAX_MESSAGE_LENGTH = 1_000
"""Messages repeat names and values that the caller wrote."""


def from_result(result: ExecutionResult, map_error: MapError) -> ResponseBody:
    """Return the body for an execution's *result*; without ``data`` when nothing was executed."""
    errors = result.errors or []
    if not _was_executed(result):
        return from_errors(errors, map_error)
    body: ResponseBody = {"data": result.data}
    if errors:
        body = {"errors": _format(errors, map_error), **body}
    return body


def from_errors(errors: Iterable[GraphQLError], map_error: MapError) -> ResponseBody:
    """Return the body for an operation that *errors* kept from running; each gets a code."""
    public = _format(errors, map_error)
    for error in public:
        error["extensions"] = {"code": "BAD_USER_INPUT", **error.get("extensions", {})}
    return {"errors": public}


def from_exception(exception: BaseException, map_error: MapError) -> ResponseBody:
    """Return the body for an operation that *exception* ended before it had a result."""
    error = GraphQLError("", original_error=exception)  # type: ignore[arg-type]
    return from_errors([error], map_error)


def _format(errors: Iterable[GraphQLError], map_error: MapError) -> list[Any]:
    public: list[Any] = [_public_error(error, map_error).formatted for error in errors]
    for error in public:
        error["message"] = shorten(error["message"], MAX_MESSAGE_LENGTH)
    return public


def _was_executed(result: ExecutionResult) -> bool:
    """Tell a result from variables that cannot be coerced: their errors have no path."""
    return result.data is not None or any(error.path is not None for error in result.errors or ())


def _public_error(error: GraphQLError, map_error: MapError) -> GraphQLError:
    """Return *error* as it is, mapped, or masked behind a reference."""
    original = error.original_error
    if original is None or isinstance(original, GraphQLError):
        return error
    if isinstance(original, ValueError) and error.nodes and error.path is None:
        # A scalar's own message about a literal or a variable that it rejects.
        return _with_location(request_error("BAD_USER_INPUT", error.message), error)
    return _with_location(map_error(original) or _masked_error(original, error.path), error)


def _masked_error(exception: BaseException, path: list[str | int] | None) -> GraphQLError:
    reference = secrets.token_hex(6)
    log.error(
        "graphql.fault",
        reference=reference,
        fault=type(exception).__name__,
        path=".".join(map(str, path or ())),
        at=frames(exception),
    )
    return request_error(
        "INTERNAL_SERVER_ERROR",
        f"Something went wrong on our side; quote {reference} when you ask about it.",
        reference=reference,
    )


def _with_location(error: GraphQLError, located: GraphQLError) -> GraphQLError:
    """Return *error* with the nodes and path of *located*."""
    return GraphQLError(
        error.message, located.nodes, path=located.path, extensions=error.extensions
    )
