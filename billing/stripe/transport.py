"""The HTTP transport of Stripe's SDK: httpx, with a check just before the first byte is sent."""

from collections.abc import Callable, Mapping
from typing import Any

import httpx
import stripe

LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=50, keepalive_expiry=30)
NOT_SENT = "not_sent"
BEFORE_THE_FIRST_BYTE = (
    *(httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError),
    # A request that cannot be written, as with a line break in a header, or an address of no server.
    *(httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.InvalidURL, UnicodeError),
)


class HttpxTransport(stripe.HTTPClient):
    """Sends each request once; *before_first_byte* runs after connecting and may raise.

    An APIConnectionError with the ``code`` ``NOT_SENT`` guarantees that no byte was sent.
    """

    name = "httpx"

    def __init__(self, timeout: httpx.Timeout, before_first_byte: Callable[[], None]) -> None:
        super().__init__()
        self._before_first_byte = before_first_byte
        self._http = httpx.AsyncClient(timeout=timeout, limits=LIMITS)

    async def request_async(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        post_data: str | bytes | None = None,
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Send one request; return the response's body, status and headers."""
        try:
            response = await self._http.request(
                method,
                url,
                headers=dict(headers),
                content=post_data,
                extensions={"trace": self._on_event},
            )
        except BEFORE_THE_FIRST_BYTE as error:
            raise _connection_error(error, code=NOT_SENT) from error
        except httpx.HTTPError as error:
            raise _connection_error(error) from error
        # The response and its stream form a reference cycle; without this, the garbage collector paused
        # for 60 ms after a thousand responses (encode/httpx#3733).
        response.stream = httpx.ByteStream(b"")
        return response.content, response.status_code, response.headers

    async def _on_event(self, event: str, _info: Mapping[str, Any]) -> None:
        if event.endswith("send_request_headers.started"):
            self._before_first_byte()

    async def close_async(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _connection_error(error: Exception, code: str | None = None) -> stripe.APIConnectionError:
    return stripe.APIConnectionError(str(error), code=code)  # type: ignore[no-untyped-call]
