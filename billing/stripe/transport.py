"""The transport under Stripe's SDK: httpx, with a last look around before the first byte leaves."""

from collections.abc import Callable, Mapping
from typing import Any

import httpx
import stripe

LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=50, keepalive_expiry=30)
NOT_SENT = "not_sent"


class Wire(stripe.HTTPClient):
    """Sends a request once; *before_first_byte* runs when the connection stands and may raise.

    An APIConnectionError whose ``code`` is ``NOT_SENT`` promises that no byte of the request left.
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
        """Body, status and headers of the answer."""
        try:
            response = await self._http.request(
                method,
                url,
                headers=dict(headers),
                content=post_data,
                extensions={"trace": self._on_event},
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _no_answer(error, code=NOT_SENT) from error
        except httpx.HTTPError as error:
            raise _no_answer(error) from error
        # What it was read from refers back to it: in a circle, which only the collector finds. After a
        # thousand answers that was a pause of 60 ms (encode/httpx#3733).
        response.stream = httpx.ByteStream(b"")
        return response.content, response.status_code, response.headers

    async def _on_event(self, event: str, _info: Mapping[str, Any]) -> None:
        if event.endswith("send_request_headers.started"):
            self._before_first_byte()

    async def close_async(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _no_answer(error: httpx.HTTPError, code: str | None = None) -> stripe.APIConnectionError:
    return stripe.APIConnectionError(str(error), code=code)  # type: ignore[no-untyped-call]
