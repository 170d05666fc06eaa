"""``POST /usage``: bulk usage from metering as newline-delimited JSON, one ``UsageDeltaInput`` a line.

Rules and response are those of ``recordUsage``. A malformed line is rejected by itself; the others
are counted. A batch of which nothing was counted has the status of an error, with the same response.
"""

import codecs
import re

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from billing.errors import ErrorCode, Unavailable
from billing.usage_ingestion import MAX_BATCH, UsageReport, record_usage
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
        lines = _parse_lines(await read_body(request, limit=MAX_BYTES))
        try:
            report = await record_usage(request.app.state.services, lines)
        except Unavailable as error:
            # Some deltas may have been counted; resent under the same ids they count once.
            headers = {"Retry-After": str(error.whole_seconds)}
            raise HttpError(503, error.code, error.message, headers) from error
        return _response(report)

    return Route("/usage", record, methods=["POST"])


def _response(report: UsageReport) -> Response:
    """Return *report* as JSON; its status is an error if nothing was counted, now or before."""
    retry_after = next((error.retry_after for error in report.errors), None)
    headers = {"Retry-After": str(retry_after)} if retry_after else {}
    status = (503 if retry_after else 422) if report.errors else 200
    content = msgspec.json.encode(report)
    return Response(content, status, headers, media_type="application/json")


def _parse_lines(body: bytes) -> list[RawDelta | Rejection]:
    """Return each line of *body* as a delta, or as the rejection of a malformed one."""
    texts = body.removeprefix(codecs.BOM_UTF8).split(b"\n")
    lines = [(number, line) for number, line in enumerate(texts, 1) if line.strip()]
    if len(lines) > MAX_BATCH:
        raise HttpError(413, "PAYLOAD_TOO_LARGE", f"Send at most {MAX_BATCH:,} deltas at a time.")
    return [_parse_line(number, line) for number, line in lines]


def _parse_line(number: int, line: bytes) -> RawDelta | Rejection:
    try:
        return _delta_decoder.decode(line)
    except (ValueError, RecursionError) as error:
        return _parse_rejection(number, line, error)


def _parse_rejection(number: int, line: bytes, error: Exception) -> Rejection:
    try:
        id_ = _id_decoder.decode(line).id
    except (ValueError, RecursionError):
        id_ = ""
    missing = re.fullmatch(r"Object missing required field (`\w+`)", str(error))
    message = (
        f"Line {number} {f'has no {missing[1]}' if missing else f'is not a usage delta: {error}'}."
    )
    return Rejection(id_, RejectionError(ErrorCode.INVALID_INPUT, message))
