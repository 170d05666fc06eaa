"""HTTP errors: JSON in the shape of a GraphQL error, on every route."""

from collections.abc import Mapping

import orjson
from starlette.responses import Response

UNAUTHENTICATED = 401


class HttpError(Exception):
    """Ends a request with *status*, a *code* for programs and a *message* that names the remedy."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """Return the HTTP response; it is never cached."""
        error = {"message": self.message, "extensions": {"code": self.code}}
        return Response(
            orjson.dumps({"errors": [error]}),
            self.status,
            {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **self.headers},
            "application/json; charset=utf-8",
        )


def unauthenticated(message: str) -> HttpError:
    """Return the 401 for a missing or invalid token."""
    return HttpError(UNAUTHENTICATED, "UNAUTHENTICATED", message, {"WWW-Authenticate": "Bearer"})
