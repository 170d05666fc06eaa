"""The pages served from here: the example panel at ``/`` (development) and Support's desk at ``/graphiql``.

Everything comes from this host and no page may load or send anything elsewhere: the policy is strict
enough that a script injected into an invoice's description would not run.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graphql import OperationDefinitionNode, parse, value_from_ast_untyped
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

HERE = Path(__file__).parent
DESK = HERE / "support_console"
GRAPHIQL = HERE / "static" / "graphiql"
PANEL = HERE.parent / "examples" / "panel"

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def web_pages(*, panel: bool) -> list[BaseRoute]:
    """Routes for whatever pages this installation has, the example *panel* among them or not."""
    routes: list[BaseRoute] = []
    if panel and PANEL.is_dir():
        routes += [_page("/", PANEL / "index.html"), Mount("/panel", _Files(directory=PANEL))]
    return [
        *routes,
        _page("/graphiql", DESK / "index.html" if (GRAPHIQL / ".ready").exists() else None),
        _page("/graphiql/desk.js", DESK / "desk.js"),
        _page("/graphiql/desk.css", DESK / "desk.css"),
        Route("/graphiql/operations.json", _operations),
        Mount("/graphiql/assets", _Files(directory=GRAPHIQL, check_dir=False)),
    ]


def operations() -> Iterator[dict[str, Any]]:
    """Support's ready-made operations, in order: the commented text, and its variables by name.

    They stand at their defaults, so that each runs as it is opened; ``$customer`` is left out, because
    the desk's bar fills it in.
    """
    for file in sorted((DESK / "operations").glob("*.graphql")):
        text = file.read_text(encoding="utf-8")
        operation = parse(text).definitions[0]
        assert isinstance(operation, OperationDefinitionNode)  # noqa: S101 our own files
        variables = {
            each.variable.name.value: value_from_ast_untyped(each.default_value)
            for each in operation.variable_definitions or ()
            if each.default_value is not None
        }
        yield {"name": file.stem, "query": text, "variables": variables}


def _page(path: str, file: Path | None) -> Route:
    async def page(_: Request) -> Response:
        if file is None:
            sentence = "GraphiQL's files are not here yet: run `make up`, or `python ide/build.py gateway/static/graphiql`."
            return Response(sentence, 503, media_type="text/plain")
        return FileResponse(file, headers=HEADERS)

    return Route(path, page)


async def _operations(_: Request) -> Response:
    return JSONResponse(list(operations()), headers=HEADERS)


class _Files(StaticFiles):
    """Static files under the same policy as the pages."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(HEADERS)
        return response
