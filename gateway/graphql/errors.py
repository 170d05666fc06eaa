"""Request errors of the GraphQL endpoint, and the HTTP status of each code."""

from typing import Any

from graphql import GraphQLError

# The official audits expect 400 under application/graphql-response+json. The working draft would
# have 422 for all but parse failures.
REQUEST_ERROR_STATUS = 400
# Under application/json a 4xx could have come from any intermediary.
LEGACY_REQUEST_ERROR_STATUS = 200

# Codes with a more specific status than the two above, under either media type.
STATUS_BY_CODE = {
    "BAD_REQUEST": 400,
    "PERSISTED_QUERY_NOT_FOUND": 200,
    "PERSISTED_QUERY_NOT_SUPPORTED": 200,
    "METHOD_NOT_ALLOWED": 405,
    "RATE_LIMITED": 429,
    "INTERNAL_SERVER_ERROR": 500,
    "TIMEOUT": 504,
}


MAX_NAME_LENGTH = 255
"""Length of the longest name that a caller may use, in characters."""
MAX_ECHO = 80


def shorten(text: str, length: int = MAX_ECHO) -> str:
    """Return *text*, which a caller wrote, cut to *length* characters for a message."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def request_error(code: str, message: str, **extensions: Any) -> GraphQLError:
    """Return an error that keeps an operation from running; *message* names the cure."""
    return GraphQLError(message, extensions={"code": code, **extensions})
