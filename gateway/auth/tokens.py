"""Bearer tokens: a JWT, signed with HS256 or by a key of a JWKS, becomes a `Viewer`. Tokens are never logged."""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from typing import Any

import httpx
import jwt

from gateway.http.errors import HttpError, unauthenticated
from resolvers.context import Role, Viewer

AUDIENCE = "fly-billing"
# Tolerated difference between two clocks, in seconds.
LEEWAY = 5.0
ASYMMETRIC = frozenset(
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
)
MAX_TOKEN_LENGTH = 8192


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


class TokenVerifier:
    """Verifies tokens with a shared *secret* (HS256), a *jwks* (asymmetric), or both, chosen by ``alg``."""

    def __init__(self, secret: str | None, jwks: JwksClient | None) -> None:
        self._secret = secret
        self._jwks = jwks

    async def verify(self, authorization: object) -> Viewer:
        """Return the bearer of *authorization* (``Bearer <JWT>``); HttpError 401 when it is not valid."""
        scheme, _, token = (
            authorization.partition(" ") if isinstance(authorization, str) else ("", "", "")
        )
        if scheme.lower() != "bearer" or not 0 < len(token) <= MAX_TOKEN_LENGTH:
            raise unauthenticated("Send a token: `Authorization: Bearer <JWT>`.")
        try:
            claims = await self._verify_signature(token.strip())
        except jwt.ExpiredSignatureError:
            raise unauthenticated("The token has expired; get a new one.") from None
        except jwt.PyJWTError:
            raise unauthenticated("The token is not valid here; get a new one.") from None
        return _viewer_from_claims(claims, token)

    async def _verify_signature(self, token: str) -> dict[str, Any]:
        if self._secret is not None and self._jwks is None:
            return _decode(token, self._secret, "HS256")
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm == "HS256" and self._secret is not None:
            return _decode(token, self._secret, "HS256")
        if algorithm in ASYMMETRIC and self._jwks is not None:
            key = await self._jwks.get_key(header.get("kid"))
            if key is not None and key.algorithm_name == algorithm:
                return _decode(token, key, algorithm)
        raise jwt.InvalidKeyError


def connection_deadline(viewer: Viewer) -> float:
    """Return the Unix time at which *viewer*'s open connections must end.

    That is the token's expiry; a token accepted within the leeway after it lasts to the leeway's end.
    """
    if viewer.expires_at is None:
        return float("inf")
    return viewer.expires_at + (LEEWAY if viewer.expires_at <= time.time() else 0.0)


def _decode(token: str, key: str | jwt.PyJWK, algorithm: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        [algorithm],
        {"require": ["aud", "exp", "sub"]},
        audience=AUDIENCE,
        leeway=LEEWAY,
    )
    return claims


def _viewer_from_claims(claims: Mapping[str, Any], token: str) -> Viewer:
    try:
        role = Role(str(claims.get("role")))
    except ValueError:
        raise unauthenticated("The token names no role; get one with the claim `role`.") from None
    customers = claims.get("customers") if role is Role.CUSTOMER else []
    if not (
        isinstance(customers, list) and all(isinstance(customer, str) for customer in customers)
    ):
        raise unauthenticated("The token's claim `customers` is not a list of Stripe customer ids.")
    return Viewer(
        subject=str(claims["sub"]),
        role=role,
        customers=frozenset(customers),
        expires_at=float(claims["exp"]),
        token_id=str(claims.get("jti") or hashlib.sha256(token.encode()).hexdigest()[:16]),
    )
