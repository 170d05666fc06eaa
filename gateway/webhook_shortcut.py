"""Skips routing for webhook POSTs: matching a route costs as much CPU as verifying the signature."""

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send


class DirectRoute:
    """ASGI middleware: sends *route*'s POSTs straight to its endpoint, everything else to *app*."""

    def __init__(self, app: ASGIApp, route: Route) -> None:
        self._app = app
        self._path = route.path
        self._endpoint = route.app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        direct = (
            scope["type"] == "http" and scope["path"] == self._path and scope["method"] == "POST"
        )
        await (self._endpoint if direct else self._app)(scope, receive, send)
