"""``POST /usage``: bulk usage from metering as newline-delimited JSON, one ``UsageDeltaInput`` a line.

Rules and response are those of ``recordUsage``. A malformed line is rejected by itself; the others
are counted.
"""

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from billing.errors import ErrorCode, Unavailable
from billing.usage_ingestion import MAX_BATCH, record_usage
from billing.usage_validation import RawDelta, Rejection, RejectionError
from gateway.auth.tokens import TokenVerifier
from gateway.http.body import read_body
from gateway.http.errors import HttpError
from resolvers.context import Role

MAX_BYTES = 4 * 1024 * 1024


class _LineId(msgspec.Struct):
    """The id of a malformed line."""

    id: str = ""


_delta_decoder = msgspec.json.Decoder(RawDelta)
_id_decoder = msgspec.json.Decoder(_LineId)


def usage_route(verifier: TokenVerifier) -> Route:
    """Return the route, for an application whose Services are in ``state.services``."""

    async def record(request: Request) -> Response:
        viewer = await verifier.verify(request.headers.get("authorization"))
        if viewer.role is not Role.METERING:
            message = "Only a token with the role metering may report usage."
            raise HttpError(403, "FORBIDDEN", message)
        deltas, malformed = _parse_lines(await read_body(request, limit=MAX_BYTES))
        try:
            report = await record_usage(request.app.state.services, deltas)
        except Unavailable as error:
            # Some deltas may have been counted; resent under the same ids they count once.
            headers = {"Retry-After": str(error.whole_seconds)}
            raise HttpError(503, error.code, error.message, headers) from error
        report = msgspec.structs.replace(report, rejected=(*report.rejected, *malformed))
        return Response(msgspec.json.encode(report), media_type="application/json")

    return Route("/usage", record, methods=["POST"])


def _parse_lines(body: bytes) -> tuple[list[RawDelta], list[Rejection]]:
    """Return each line of *body* as a delta, or as the rejection of a malformed one."""
    lines = [(number, line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]
    if len(lines) > MAX_BATCH:
        raise HttpError(413, "PAYLOAD_TOO_LARGE", f"Send at most {MAX_BATCH:,} deltas at a time.")
    deltas, malformed = [], []
    for number, line in lines:
        try:
            deltas.append(_delta_decoder.decode(line))
        except (ValueError, RecursionError) as error:
            malformed.append(_parse_rejection(number, line, error))
    return deltas, malformed


def _parse_rejection(number: int, line: bytes, error: Exception) -> Rejection:
    try:
        id_ = _id_decoder.decode(line).id
    except (ValueError, RecursionError):
        id_ = ""
    message = f"Line {number} is not a UsageDeltaInput: {error}."
    return Rejection(id_, RejectionError(ErrorCode.INVALID_INPUT, message))
