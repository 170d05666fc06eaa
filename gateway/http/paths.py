"""Paths: what a client may write differently is the same to everything behind."""

from starlette.types import ASGIApp, Receive, Scope, Send

API_PATHS = ("/graphql", "/usage", "/webhooks/stripe", "/healthz", "/readyz", "/metrics")
WITH_SLASH = {f"{path}/": path for path in API_PATHS}


class PathNormalizer:
    """ASGI middleware: removes the server's root path, and the slash after a path of the API.

    A redirect to the other form would lose the body of a webhook, and repeat the client's Host header.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if path := scope.get("path"):
            root = scope.get("root_path", "").rstrip("/")
            if root and path.startswith(f"{root}/"):
                path = path.removeprefix(root)
            scope["path"], scope["root_path"] = WITH_SLASH.get(path, path), ""
        await self._app(scope, receive, send)
