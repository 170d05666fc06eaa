"""Static pages: the example panel at ``/`` (development) and the support console at ``/graphiql``.

All files come from this host. The content security policy forbids loading from and sending to other
hosts; a script injected into an invoice's description would not run.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import orjson
from graphql import OperationDefinitionNode, parse, value_from_ast_untyped
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

HERE = Path(__file__).parent
SUPPORT_CONSOLE = HERE / "support_console"
GRAPHIQL = HERE / "static" / "graphiql"
PANEL = HERE.parent / "examples" / "panel"

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "Cache-Control": "no-cache",
}


def page_routes(*, panel: bool) -> list[BaseRoute]:
    """Return the routes of the installed pages, with or without the example *panel*."""
    routes: list[BaseRoute] = []
    if panel and PANEL.is_dir():
        routes += [
            _page_route("/", PANEL / "index.html"),
            Mount("/panel", _StaticFiles(directory=PANEL)),
        ]
    return [
        *routes,
        _page_route(
            "/graphiql", SUPPORT_CONSOLE / "index.html" if (GRAPHIQL / ".ready").exists() else None
        ),
        Route("/graphiql/", _without_slash),
        _page_route("/graphiql/console.js", SUPPORT_CONSOLE / "console.js"),
        _page_route("/graphiql/console.css", SUPPORT_CONSOLE / "console.css"),
        Route("/graphiql/operations.json", _operations_json),
        Mount("/graphiql/assets", _StaticFiles(directory=GRAPHIQL, check_dir=False)),
    ]


def support_operations() -> Iterator[dict[str, Any]]:
    """Yield the support console's ready-made operations, in order: commented text, variables by name.

    Variables have their defaults, so that each operation runs as it is opened; ``$customer`` is left
    out, because the console's customer bar fills it in.
    """
    for file in sorted((SUPPORT_CONSOLE / "operations").glob("*.graphql")):
        text = file.read_text(encoding="utf-8")
        operation = parse(text).definitions[0]
        assert isinstance(operation, OperationDefinitionNode)  # noqa: S101 our own files
        variables = {
            variable.variable.name.value: value_from_ast_untyped(variable.default_value)
            for variable in operation.variable_definitions or ()
            if variable.default_value is not None
        }
        yield {"name": file.stem, "query": text, "variables": variables}


def _page_route(path: str, file: Path | None) -> Route:
    async def page(_: Request) -> Response:
        if file is None:
            message = "GraphiQL's files are not here yet: run `make up`, or `python ide/build.py gateway/static/graphiql`."
            return Response(message, 503, media_type="text/plain")
        return FileResponse(file, headers=HEADERS)

    return Route(path, page)


async def _without_slash(_: Request) -> Response:
    """Redirect to the form from which the page's relative addresses lead to its files, behind any prefix."""
    return Response(status_code=308, headers={"Location": "../graphiql", **HEADERS})


async def _operations_json(_: Request) -> Response:
    return Response(_encoded_operations(), headers=HEADERS, media_type="application/json")


@cache
def _encoded_operations() -> bytes:
    """Return the operations as JSON; parsing them takes 15 ms."""
    return orjson.dumps(list(support_operations()))


class _StaticFiles(StaticFiles):
    """Static files with the same response headers as the pages."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(HEADERS)
        return response
