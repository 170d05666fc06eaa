"""What came out of an operation, as the body of an answer: shaped, and masked.

Everything that leaves by HTTP, SSE or WebSocket is made here, whichever phase it comes from, so that
no fault in a resolver, an extension or the edge itself can get past the mask.
"""

import re
import secrets
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from graphql import ExecutionResult, GraphQLError

from billing.logs import frames
from gateway.graphql.errors import request_error

log = structlog.get_logger()

Body = dict[str, Any]
Explain = Callable[[BaseException], GraphQLError | None]
"""Turns an expected exception into the error to tell; None for a fault."""

SUGGESTION = re.compile(r" ?Did you mean [^?]*\?")


def executed(result: ExecutionResult, explain: Explain, *, suggestions: bool) -> Body:
    """The body for an execution's *result*; without ``data`` when nothing was executed."""
    errors = result.errors or []
    if not _was_executed(result):
        return refused(errors, explain, suggestions=suggestions)
    told = {"errors": [_told(error, explain).formatted for error in errors]} if errors else {}
    return {**told, "data": result.data}


def refused(errors: Iterable[GraphQLError], explain: Explain, *, suggestions: bool) -> Body:
    """The body for an operation that *errors* kept from running; each has a code."""
    told = [_told(error, explain).formatted for error in errors]
    for error in told:
        error["extensions"] = {"code": "BAD_USER_INPUT", **error.get("extensions", {})}
        if not suggestions:
            error["message"] = SUGGESTION.sub("", error["message"])
    return {"errors": told}


def failed(fault: BaseException, explain: Explain) -> Body:
    """The body for an operation that *fault* ended before it had a result."""
    return refused([GraphQLError("", original_error=fault)], explain, suggestions=True)  # type: ignore[arg-type]


def _was_executed(result: ExecutionResult) -> bool:
    """Variables that cannot be coerced come back as a plain result whose errors have no path."""
    return result.data is not None or any(error.path is not None for error in result.errors or ())


def _told(error: GraphQLError, explain: Explain) -> GraphQLError:
    """*error* as the caller may know it: as it is, explained, or behind a reference."""
    fault = error.original_error
    if fault is None or isinstance(fault, GraphQLError):
        return error
    if isinstance(fault, ValueError) and error.nodes and error.path is None:
        # A scalar's own words on a literal or a variable that it does not take.
        return _replaced(error, request_error("BAD_USER_INPUT", error.message))
    return _replaced(error, explain(fault) or _masked(fault, error.path))


def _masked(fault: BaseException, path: list[str | int] | None) -> GraphQLError:
    reference = secrets.token_hex(6)
    log.error(
        "graphql.fault",
        reference=reference,
        fault=type(fault).__name__,
        path=".".join(map(str, path or ())),
        at=frames(fault),
    )
    return request_error(
        "INTERNAL_SERVER_ERROR",
        f"Something went wrong on our side; quote {reference} when you ask about it.",
        reference=reference,
    )


def _replaced(error: GraphQLError, by: GraphQLError) -> GraphQLError:
    """*by*, in the place of *error*."""
    return GraphQLError(by.message, error.nodes, path=error.path, extensions=by.extensions)
