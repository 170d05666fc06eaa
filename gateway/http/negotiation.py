"""Content negotiation: the response's media type from the Accept header (RFC 9110 §12.5.1)."""

from enum import StrEnum
from functools import lru_cache


class MediaType(StrEnum):
    """Media types of a GraphQL response."""

    GRAPHQL = "application/graphql-response+json"
    JSON = "application/json"
    EVENT_STREAM = "text/event-stream"

    @property
    def content_type(self) -> str:
        """The Content-Type header's value."""
        return f"{self}; charset=utf-8"


# Clients that do not name the GraphQL type get legacy JSON: the specification's watershed.
_JSON_FIRST = (MediaType.JSON, MediaType.GRAPHQL)
_GRAPHQL_FIRST = (MediaType.GRAPHQL, MediaType.JSON)


@lru_cache(maxsize=128)
def negotiate(accept: str) -> MediaType | None:
    """Return the media type for an Accept header's value; None when none of ours is acceptable.

    A stream is chosen only when it outranks JSON: urql names ``text/event-stream`` last on every query.
    """
    ranges = _parse_ranges(accept or "*/*")
    named = {name for name, _ in ranges}
    single = max(
        _GRAPHQL_FIRST if MediaType.GRAPHQL in named else _JSON_FIRST,
        key=lambda media: _quality(ranges, media),
    )
    stream_quality = _quality(ranges, MediaType.EVENT_STREAM)
    if MediaType.EVENT_STREAM in named and stream_quality > _quality(ranges, single):
        return MediaType.EVENT_STREAM
    return single if _quality(ranges, single) > 0 else None


def _parse_ranges(accept: str) -> list[tuple[str, float]]:
    """Return the media ranges of *accept*, each with its weight."""
    ranges = []
    for part in accept.split(","):
        name, *parameters = part.lower().split(";")
        if name.strip():
            ranges.append((name.strip(), _weight(parameters)))
    return ranges


def _weight(parameters: list[str]) -> float:
    """Return the ``q`` parameter, 1 by default; a malformed one counts as 0."""
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def _quality(ranges: list[tuple[str, float]], media: MediaType) -> float:
    """Return the weight of the most specific range that covers *media*."""
    for covering in (media.value, media.partition("/")[0] + "/*", "*/*"):
        weights = [weight for name, weight in ranges if name == covering]
        if weights:
            return max(weights)
    return 0.0
