"""``POST /usage``: metering's bulk door, newline-delimited JSON, one ``UsageDeltaInput`` a line.

The rules and the answer are ``recordUsage``'s. A line that cannot be read is refused by itself; its
neighbours are counted.
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
from billing.usage_validation import Rejection, ReportedDelta
from gateway.auth.tokens import Tokens
from gateway.graphql.request_params import read_body
from gateway.http.errors import HttpRefusal
from resolvers.context import Role

MAX_BYTES = 4 * 1024 * 1024


class Line(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """One line, as GraphQL takes ``UsageDeltaInput``; numbers and moments are read further in."""

    id: str
    customer_id: str
    sku: str
    quantity: Any
    occurred_at: Any
    app: str | None = None
    region: str | None = None
    organization: str | None = None


class _Identified(msgspec.Struct):
    """As much of a bad line as tells which it was."""

    id: str = ""


_line = msgspec.json.Decoder(Line)
_identified = msgspec.json.Decoder(_Identified)


def usage_route(tokens: Tokens) -> Route:
    """``POST /usage``, for an application that keeps its open Services in ``state.services``."""

    async def record(request: Request) -> Response:
        viewer = await tokens.viewer(request.headers.get("authorization"))
        if viewer.role is not Role.METERING:
            raise HttpRefusal(
                403, "FORBIDDEN", "Only a token with the role metering may report usage."
            )
        body = await read_body(request, limit=MAX_BYTES)
        return await _recorded(request.app.state.services, body)

    return Route("/usage", record, methods=["POST"])


async def _recorded(services: Services, body: bytes) -> Response:
    deltas, unreadable = _read(body)
    try:
        report = await record_usage(services, deltas)
    except Unavailable as error:
        # Some of it may have been counted; sent again under the same ids it counts once.
        raise HttpRefusal(
            503, error.code, error.message, {"Retry-After": str(error.whole_seconds)}
        ) from error
    return Response(orjson.dumps(_payload(report, unreadable)), media_type="application/json")


def _read(body: bytes) -> tuple[list[ReportedDelta], list[Rejection]]:
    """Each line of *body* as a delta, or as the reason why it is none."""
    lines = [(at, line) for at, line in enumerate(body.split(b"\n"), 1) if line.strip()]
    if len(lines) > MAX_BATCH:
        raise HttpRefusal(413, "PAYLOAD_TOO_LARGE", f"Send at most {MAX_BATCH:,} deltas at a time.")
    deltas, unreadable = [], []
    for at, line in lines:
        try:
            read = _line.decode(line)
        except (ValueError, RecursionError) as error:
            unreadable.append(_unreadable(at, line, error))
        else:
            deltas.append(ReportedDelta(*msgspec.structs.astuple(read)))
    return deltas, unreadable


def _unreadable(at: int, line: bytes, error: Exception) -> Rejection:
    try:
        id_ = _identified.decode(line).id
    except (ValueError, RecursionError):
        id_ = ""
    return Rejection(id_, ErrorCode.INVALID_INPUT, f"Line {at} is no UsageDeltaInput: {error}.")


def _payload(report: UsageReport, unreadable: list[Rejection]) -> dict[str, object]:
    """*report* as ``RecordUsagePayload``."""
    return {
        "accepted": report.accepted,
        "duplicates": report.duplicates,
        "rejected": [
            {"id": each.id, "error": _error(each)} for each in (*report.rejected, *unreadable)
        ],
        "durability": report.durability,
        "ledgerEpoch": report.ledger_epoch,
        "errors": [],
    }


def _error(rejection: Rejection) -> dict[str, object]:
    """*rejection* as ``UserError``."""
    return {
        "code": rejection.code,
        "message": rejection.message,
        "path": rejection.path or None,
        "retryAfter": rejection.retry_after,
    }
