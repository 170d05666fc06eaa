"""Who asks: a bearer token (JWT, HS256 or the keys of a JWKS) becomes a `Viewer`. Tokens are never logged."""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from typing import Any

import httpx
import jwt

from gateway.http.errors import HttpRefusal, unauthenticated
from resolvers.context import Role, Viewer

AUDIENCE = "fly-billing"
# How far apart two clocks may be, in seconds.
LEEWAY = 5.0
ASYMMETRIC = frozenset(
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
)
MAX_TOKEN = 8192


class KeySet:
    """The public keys at *url* (RFC 7517), kept for *lifetime* seconds.

    An unknown key id, as after a rotation, is looked up at once, but not more often than every
    *patience* seconds: anybody can invent one. While the address does not answer, known keys stay.
    """

    def __init__(
        self, url: str, client: httpx.AsyncClient, *, lifetime: float = 600, patience: float = 10
    ) -> None:
        self._url = url
        self._client = client
        self._lifetime = lifetime
        self._patience = patience
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._asked = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def key(self, key_id: str | None) -> jwt.PyJWK | None:
        """The key named *key_id*, None when the set has none of that name.

        While one looks them up, only those wait whose key is not known.
        """
        wait = self._patience if key_id not in self._keys else self._lifetime
        fetching = self._fetching
        if fetching is None or (fetching.done() and time.monotonic() - self._asked >= wait):
            self._asked = time.monotonic()
            fetching = self._fetching = asyncio.create_task(self._fetch())
        elif key_id in self._keys:
            return self._keys[key_id]
        await asyncio.shield(fetching)  # others wait for it too
        if not self._keys:
            raise HttpRefusal(
                503,
                "KEYS_UNAVAILABLE",
                "The keys that verify tokens cannot be read right now; try again.",
                {"Retry-After": "5"},
            )
        return self._keys.get(key_id)

    async def _fetch(self) -> None:
        try:
            answer = await self._client.get(self._url)
            answer.raise_for_status()
            found = jwt.PyJWKSet.from_dict(answer.json()).keys
        except (httpx.HTTPError, ValueError, AttributeError, TypeError, jwt.PyJWTError):
            return
        self._keys = {key.key_id: key for key in found if key.algorithm_name in ASYMMETRIC}


class Tokens:
    """Verifies tokens by a shared *secret* (HS256), by *keys* (asymmetric), or both, told apart by ``alg``."""

    def __init__(self, secret: str | None, keys: KeySet | None) -> None:
        self._secret = secret
        self._keys = keys

    async def viewer(self, authorization: object) -> Viewer:
        """The bearer of *authorization* (``Bearer <JWT>``); HttpRefusal 401 when it proves nobody."""
        scheme, _, token = (
            authorization.partition(" ") if isinstance(authorization, str) else ("", "", "")
        )
        if scheme.lower() != "bearer" or not 0 < len(token) <= MAX_TOKEN:
            raise unauthenticated("Send a token: `Authorization: Bearer <JWT>`.")
        try:
            claims = await self._claims(token.strip())
        except jwt.ExpiredSignatureError:
            raise unauthenticated("The token has expired; get a new one.") from None
        except jwt.PyJWTError:
            raise unauthenticated("The token is not valid here; get a new one.") from None
        return _viewer(claims, token)

    async def _claims(self, token: str) -> dict[str, Any]:
        if self._secret is not None and self._keys is None:
            return _verified(token, self._secret, "HS256")
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm == "HS256" and self._secret is not None:
            return _verified(token, self._secret, "HS256")
        if algorithm in ASYMMETRIC and self._keys is not None:
            key = await self._keys.key(header.get("kid"))
            if key is not None and key.algorithm_name == algorithm:
                return _verified(token, key, algorithm)
        raise jwt.InvalidKeyError


def lasts_until(viewer: Viewer) -> float:
    """When (seconds since 1970) what *viewer* keeps open has to end.

    That is the token's expiry; one that was taken within the leeway after it gets the leeway's end.
    """
    if viewer.expires_at is None:
        return float("inf")
    return viewer.expires_at + (LEEWAY if viewer.expires_at <= time.time() else 0.0)


def _verified(token: str, key: str | jwt.PyJWK, algorithm: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        [algorithm],
        {"require": ["aud", "exp", "sub"]},
        audience=AUDIENCE,
        leeway=LEEWAY,
    )
    return claims


def _viewer(claims: Mapping[str, Any], token: str) -> Viewer:
    try:
        role = Role(str(claims.get("role")))
    except ValueError:
        raise unauthenticated(
            "The token names no role; ask for one with the claim `role`."
        ) from None
    customers = claims.get("customers") if role is Role.CUSTOMER else []
    if not (isinstance(customers, list) and all(isinstance(each, str) for each in customers)):
        raise unauthenticated("The token's claim `customers` is no list of Stripe customer ids.")
    return Viewer(
        subject=str(claims["sub"]),
        role=role,
        customers=frozenset(customers),
        expires_at=float(claims["exp"]),
        token_id=str(claims.get("jti") or hashlib.sha256(token.encode()).hexdigest()[:16]),
    )
