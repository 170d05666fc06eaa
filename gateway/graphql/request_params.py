"""Parameters of a GraphQL request: strict JSON and strict shapes, the same over HTTP and WebSocket."""

from typing import Any

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request

from gateway.http.body import read_body
from gateway.http.errors import HttpError

_JSON_PARAMETERS = ("variables", "extensions")


class RequestParams(msgspec.Struct, rename="camel"):
    """A GraphQL request's parameters; *document_id* names a trusted document in place of *query*."""

    query: str | None = None
    variables: dict[str, Any] | None = None
    operation_name: str | None = None
    extensions: dict[str, Any] | None = None
    document_id: str | None = None

    @property
    def names_document(self) -> bool:
        """True if there is a document, its hash or its id."""
        persisted = "persistedQuery" in (self.extensions or {})
        return self.query is not None or self.document_id is not None or persisted


_params_decoder = msgspec.json.Decoder(RequestParams)
_object_decoder = msgspec.json.Decoder(dict[str, Any] | None)


async def read_params(request: Request, *, limit: int) -> RequestParams:
    """Read a GET or POST *request*, whose body may have *limit* bytes; HttpError when it is malformed."""
    if request.method == "GET":
        return _params_from_query(request.query_params)
    _require_json(request)
    body = await read_body(request, limit=limit)
    try:
        return _params_decoder.decode(body)
    except (ValueError, RecursionError) as error:
        raise _bad_request(error) from None


def _params_from_query(query: QueryParams) -> RequestParams:
    params: dict[str, Any] = {name: text for name, text in query.multi_items() if text}
    try:
        for name in _JSON_PARAMETERS:
            if name in params:
                params[name] = _object_decoder.decode(params[name])
        return msgspec.convert(params, RequestParams)
    except (ValueError, RecursionError) as error:
        raise _bad_request(error) from None


def _require_json(request: Request) -> None:
    media, *parameters = request.headers.get("content-type", "").lower().split(";")
    charsets = [text.partition("=")[2].strip('" ') for text in parameters if "charset" in text]
    if media.strip() != "application/json" or any(charset != "utf-8" for charset in charsets):
        raise HttpError(
            415,
            "UNSUPPORTED_MEDIA_TYPE",
            "Send the request as Content-Type: application/json, in UTF-8.",
            {"Accept-Post": "application/json"},
        )


def _bad_request(error: Exception) -> HttpError:
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return HttpError(
        400, "BAD_REQUEST", f"The request is not a well-formed GraphQL request: {reason}."
    )
