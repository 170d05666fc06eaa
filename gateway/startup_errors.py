"""Startup errors end in one logged sentence; Starlette would print a traceback for each."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from billing.settings import StartupError

STARTUP_FAILED = "lifespan.startup.failed"


async def lifespan(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run *app*'s lifespan; a StartupError, which has been logged, is reported without its traceback."""
    failed: list[Message] = []

    async def forward(message: Message) -> None:
        if message["type"] == STARTUP_FAILED:
            failed.append(message)
        else:
            await send(message)

    try:
        await app(scope, receive, forward)
    except StartupError:
        await send({"type": STARTUP_FAILED})
    except BaseException:
        for message in failed:
            await send(message)
        raise
