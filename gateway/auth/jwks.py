"""The token issuer's public keys, read from its JWKS (RFC 7517)."""

import asyncio
import json
import math
import time
from collections.abc import Mapping

import httpx
import jwt
import structlog

from gateway.http.errors import HttpError

log = structlog.get_logger(__name__)

ASYMMETRIC = frozenset(
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
)
MAX_BYTES = 262_144


class JwksClient:
    """The public keys at *url* (a JWKS, RFC 7517), cached for *max_age* seconds.

    A fetch ends within *fetch_timeout*. An unknown key id, as after a rotation, triggers a fetch at once, but at most one every
    *min_refresh_interval* seconds: a client can invent key ids. Until the next fetch nobody can tell whether such a
    key is valid. While the issuer is unreachable, known keys stay valid.
    """

    def __init__(
        self,
        url: str,
        client: httpx.AsyncClient,
        *,
        max_age: float = 600,
        min_refresh_interval: float = 10,
        fetch_timeout: float = 5,
    ) -> None:
        self._url = url
        self._client = client
        self._max_age = max_age
        self._min_refresh_interval = min_refresh_interval
        self._fetch_timeout = fetch_timeout
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")
        self._fetch_task: asyncio.Task[bool] | None = None

    async def get_key(self, key_id: str | None) -> jwt.PyJWK | None:
        """Return the key named *key_id*, None when the set has none of that name.

        Without *key_id* that is the key of a set that has only one. HttpError 503 while nobody can tell. During a
        fetch only callers with an unknown key wait for it.
        """
        known = self._find(key_id)
        wait = self._min_refresh_interval if known is None else self._max_age
        fetching, due_in = self._fetch_task, self._fetched_at + wait - time.monotonic()
        if fetching is None or (fetching.done() and due_in <= 0):
            self._fetched_at = time.monotonic()
            fetching = self._fetch_task = asyncio.create_task(self._fetch())
        elif known is not None:
            return known
        elif fetching.done():
            raise _keys_unavailable(due_in)
        read = await asyncio.shield(fetching)  # other callers wait for it too
        found = self._find(key_id)
        if found is None and not read:
            raise _keys_unavailable(self._min_refresh_interval)
        return found

    def _find(self, key_id: str | None) -> jwt.PyJWK | None:
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    async def _fetch(self) -> bool:
        """Replace the keys; return False, and keep them, when the set cannot be read."""
        try:
            async with asyncio.timeout(self._fetch_timeout):
                self._keys = _verification_keys(await self._read())
        except Exception as error:  # noqa: BLE001 the issuer's answer may be anything
            log.warning("jwks.unreadable", error=type(error).__name__)
            return False
        return True

    async def _read(self) -> bytes:
        body = b""
        async with self._client.stream("GET", self._url) as response:
            response.raise_for_status()
            async for part in response.aiter_bytes():
                body += part
                if len(body) > MAX_BYTES:
                    raise ValueError(f"more than {MAX_BYTES} bytes")
        return body


def _verification_keys(jwks: bytes) -> Mapping[str | None, jwt.PyJWK]:
    """Return the public keys of *jwks* that are meant for signatures, by id; ValueError if there are none."""
    keys = {
        key.key_id: key
        for key in jwt.PyJWKSet.from_dict(json.loads(jwks)).keys
        if key.algorithm_name in ASYMMETRIC and key.public_key_use in (None, "sig")
    }
    if not keys:
        raise ValueError("The set has no key that verifies tokens.")
    return keys


def _keys_unavailable(seconds: float) -> HttpError:
    return HttpError(
        503,
        "KEYS_UNAVAILABLE",
        "The keys that verify tokens cannot be read right now; try again.",
        {"Retry-After": str(max(1, math.ceil(seconds)))},
    )
