"""The pages that the gateway serves: Support's GraphiQL, and the example panel in development."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

GRAPHIQL = Path(__file__).parent / "static" / "graphiql"
PANEL = Path(__file__).parent.parent / "examples" / "panel"

HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# GraphiQL handles Support's tokens: nothing foreign runs there, and nothing leaves for elsewhere.
STRICT = {
    **HEADERS,
    "Content-Security-Policy": (
        "default-src 'self'; font-src 'self' data:; img-src 'self' data:; frame-ancestors 'none'"
    ),
}


class Pages(StaticFiles):
    """The files of *directory*, each with *headers*."""

    def __init__(self, directory: Path, headers: dict[str, str]) -> None:
        super().__init__(directory=directory, html=True)
        self._headers = headers

    async def get_response(self, path: str, scope: Scope) -> Response:
        """One file."""
        response = await super().get_response(path, scope)
        response.headers.update(self._headers)
        return response


def pages(*, panel: bool) -> list[BaseRoute]:
    """What is built of ``/graphiql``, and with *panel* the example panel at ``/``."""
    routes: list[BaseRoute] = []
    if GRAPHIQL.is_dir():
        routes += [Route("/graphiql", _inside), Mount("/graphiql", Pages(GRAPHIQL, STRICT))]
    if panel and PANEL.is_dir():
        routes.append(Mount("/", Pages(PANEL, HEADERS)))
    return routes


async def _inside(_: Request) -> Response:
    return RedirectResponse("/graphiql/")
