"""A start that is refused ends in its sentence: Starlette hands every reason on as a traceback."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from billing.settings import SettingsRefused

FAILED = "lifespan.startup.failed"


async def live(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Open *app* and close it; of a refusal, which has been logged, only that it failed is told."""
    failed: list[Message] = []

    async def tell(message: Message) -> None:
        if message["type"] == FAILED:
            failed.append(message)
        else:
            await send(message)

    try:
        await app(scope, receive, tell)
    except SettingsRefused:
        await send({"type": FAILED})
    except BaseException:
        for message in failed:
            await send(message)
        raise
