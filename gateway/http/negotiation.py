"""How to answer: the media type that the Accept header asks for (RFC 9110 §12.5.1)."""

from enum import StrEnum
from functools import lru_cache


class MediaType(StrEnum):
    """What a GraphQL answer can be written as."""

    GRAPHQL = "application/graphql-response+json"
    JSON = "application/json"
    EVENTS = "text/event-stream"

    @property
    def content_type(self) -> str:
        """The Content-Type header's value."""
        return f"{self}; charset=utf-8"


# Legacy JSON is what a client that does not care gets: the specification's watershed.
_CARELESS = (MediaType.JSON, MediaType.GRAPHQL)
_CAREFUL = (MediaType.GRAPHQL, MediaType.JSON)


@lru_cache(maxsize=128)
def negotiate(accept: str) -> MediaType | None:
    """The media type for an Accept header's value; None when nothing that we write is acceptable.

    A stream is chosen only when it outranks JSON: urql names ``text/event-stream`` last on every query.
    """
    ranges = _ranges(accept or "*/*")
    named = {name for name, _ in ranges}
    single = max(
        _CAREFUL if MediaType.GRAPHQL in named else _CARELESS,
        key=lambda media: _quality(ranges, media),
    )
    streamed = _quality(ranges, MediaType.EVENTS)
    if MediaType.EVENTS in named and streamed > _quality(ranges, single):
        return MediaType.EVENTS
    return single if _quality(ranges, single) > 0 else None


def _ranges(accept: str) -> list[tuple[str, float]]:
    ranges = []
    for part in accept.split(","):
        name, *parameters = part.lower().split(";")
        if name.strip():
            ranges.append((name.strip(), _weight(parameters)))
    return ranges


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def _quality(ranges: list[tuple[str, float]], media: MediaType) -> float:
    """The weight of the most specific range that covers *media*."""
    for covering in (media.value, media.partition("/")[0] + "/*", "*/*"):
        weights = [weight for name, weight in ranges if name == covering]
        if weights:
            return max(weights)
    return 0.0
