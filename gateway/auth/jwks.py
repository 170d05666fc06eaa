"""The token issuer's public keys, read from its JWKS (RFC 7517)."""

import asyncio
import time
from collections.abc import Mapping

import httpx
import jwt

from gateway.http.errors import HttpError

ASYMMETRIC = frozenset(
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
)


class JwksClient:
    """The public keys at *url* (a JWKS, RFC 7517), cached for *max_age* seconds.

    An unknown key id, as after a rotation, triggers a fetch at once, but at most one every
    *min_refresh_interval* seconds: a client can invent key ids. While the issuer is unreachable, known
    keys stay valid.
    """

    def __init__(
        self,
        url: str,
        client: httpx.AsyncClient,
        *,
        max_age: float = 600,
        min_refresh_interval: float = 10,
    ) -> None:
        self._url = url
        self._client = client
        self._max_age = max_age
        self._min_refresh_interval = min_refresh_interval
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")
        self._fetch_task: asyncio.Task[None] | None = None

    async def get_key(self, key_id: str | None) -> jwt.PyJWK | None:
        """Return the key named *key_id*, None when the set has none of that name.

        During a fetch only callers with an unknown key wait for it.
        """
        wait = self._min_refresh_interval if key_id not in self._keys else self._max_age
        fetching = self._fetch_task
        if fetching is None or (fetching.done() and time.monotonic() - self._fetched_at >= wait):
            self._fetched_at = time.monotonic()
            fetching = self._fetch_task = asyncio.create_task(self._fetch())
        elif key_id in self._keys:
            return self._keys[key_id]
        await asyncio.shield(fetching)  # other callers wait for it too
        if not self._keys:
            raise HttpError(
                503,
                "KEYS_UNAVAILABLE",
                "The keys that verify tokens cannot be read right now; try again.",
                {"Retry-After": "5"},
            )
        return self._keys.get(key_id)

    async def _fetch(self) -> None:
        try:
            response = await self._client.get(self._url)
            response.raise_for_status()
            keys = jwt.PyJWKSet.from_dict(response.json()).keys
        except (httpx.HTTPError, ValueError, AttributeError, TypeError, jwt.PyJWTError):
            return
        self._keys = {key.key_id: key for key in keys if key.algorithm_name in ASYMMETRIC}
