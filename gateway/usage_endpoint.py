"""``POST /usage``: bulk usage from metering as newline-delimited JSON, one ``UsageDeltaInput`` a line.

Rules and response are those of ``recordUsage``. A malformed line is rejected by itself; the others
are counted.
"""

from typing import Any

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from billing.errors import ErrorCode, Unavailable
from billing.services import Services
from billing.usage_ingestion import MAX_BATCH, UsageReport, record_usage
from billing.usage_validation import RawDelta, Rejection
from gateway.auth.tokens import TokenVerifier
from gateway.graphql.request_params import read_body
from gateway.http.errors import HttpError
from resolvers.context import Role

MAX_BYTES = 4 * 1024 * 1024


class UsageLine(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """One line, with the fields of ``UsageDeltaInput``; numbers and times are validated later."""

    id: str
    customer_id: str
    sku: str
    quantity: Any
    occurred_at: Any
    app: str | None = None
    region: str | None = None
    organization: str | None = None


class _LineId(msgspec.Struct):
    """The id of a malformed line."""

    id: str = ""


_line_decoder = msgspec.json.Decoder(UsageLine)
_id_decoder = msgspec.json.Decoder(_LineId)


def usage_route(verifier: TokenVerifier) -> Route:
    """Return the route, for an application whose Services are in ``state.services``."""

    async def record(request: Request) -> Response:
        viewer = await verifier.verify(request.headers.get("authorization"))
        if viewer.role is not Role.METERING:
            raise HttpError(
                403, "FORBIDDEN", "Only a token with the role metering may report usage."
            )
        body = await read_body(request, limit=MAX_BYTES)
        return await _record_body(request.app.state.services, body)

    return Route("/usage", record, methods=["POST"])


async def _record_body(services: Services, body: bytes) -> Response:
    deltas, malformed = _parse_lines(body)
    try:
        report = await record_usage(services, deltas)
    except Unavailable as error:
        # Some deltas may have been counted; resent under the same ids they count once.
        raise HttpError(
            503, error.code, error.message, {"Retry-After": str(error.whole_seconds)}
        ) from error
    return Response(orjson.dumps(_payload(report, malformed)), media_type="application/json")


def _parse_lines(body: bytes) -> tuple[list[RawDelta], list[Rejection]]:
    """Return each line of *body* as a delta, or as the rejection of a malformed one."""
    lines = [(number, line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]
    if len(lines) > MAX_BATCH:
        raise HttpError(413, "PAYLOAD_TOO_LARGE", f"Send at most {MAX_BATCH:,} deltas at a time.")
    deltas, malformed = [], []
    for number, line in lines:
        try:
            delta = _line_decoder.decode(line)
        except (ValueError, RecursionError) as error:
            malformed.append(_parse_rejection(number, line, error))
        else:
            deltas.append(RawDelta(*msgspec.structs.astuple(delta)))
    return deltas, malformed


def _parse_rejection(number: int, line: bytes, error: Exception) -> Rejection:
    try:
        id_ = _id_decoder.decode(line).id
    except (ValueError, RecursionError):
        id_ = ""
    message = f"Line {number} is not a UsageDeltaInput: {error}."
    return Rejection(id_, ErrorCode.INVALID_INPUT, message)


def _payload(report: UsageReport, malformed: list[Rejection]) -> dict[str, object]:
    """Return *report* and the *malformed* lines as ``RecordUsagePayload``."""
    return {
        "accepted": report.accepted,
        "duplicates": report.duplicates,
        "rejected": [
            {"id": rejection.id, "error": _user_error(rejection)}
            for rejection in (*report.rejected, *malformed)
        ],
        "durability": report.durability,
        "ledgerEpoch": report.ledger_epoch,
        "errors": [],
    }


def _user_error(rejection: Rejection) -> dict[str, object]:
    """Return *rejection* as ``UserError``."""
    return {
        "code": rejection.code,
        "message": rejection.message,
        "path": rejection.path or None,
        "retryAfter": rejection.retry_after,
    }
