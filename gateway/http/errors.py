"""An HTTP refusal: JSON in the shape of a GraphQL error, whatever the route."""

from collections.abc import Mapping

import orjson
from starlette.responses import Response

UNAUTHENTICATED = 401


class HttpRefusal(Exception):
    """The request goes no further: *status*, a *code* for programs, a *message* that names the cure."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """The refusal as an answer; never cached."""
        error = {"message": self.message, "extensions": {"code": self.code}}
        return Response(
            orjson.dumps({"errors": [error]}),
            self.status,
            {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **self.headers},
            "application/json; charset=utf-8",
        )


def unauthenticated(message: str) -> HttpRefusal:
    """401: nobody is known to ask."""
    return HttpRefusal(UNAUTHENTICATED, "UNAUTHENTICATED", message, {"WWW-Authenticate": "Bearer"})
