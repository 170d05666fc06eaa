"""Bearer tokens: a JWT, signed with HS256 or by a key of a JWKS, becomes a `Viewer` and a `Caller`.

Tokens are never logged.
"""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import jwt
from starlette.applications import Starlette

from billing.settings import Environment, Settings
from gateway.auth.caller import Authenticate, Caller
from gateway.auth.jwks import ASYMMETRIC, JwksClient
from gateway.billing_extension import MISSED_LOOKUP_COST
from gateway.http.errors import unauthenticated
from resolvers.context import Context, Role, Viewer

AUDIENCE = "fly-billing"
# Tolerated difference between two clocks, in seconds.
LEEWAY = 5.0
MAX_TOKEN_LENGTH = 8192


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
        return _viewer_from_claims(claims)

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


def create_authenticator(
    app: Starlette, verifier: TokenVerifier, settings: Settings
) -> Authenticate:
    """Return the function that authenticates callers of *app*, whose Services are in ``state.services``.

    In production only staff and services may introspect the schema: a customer's token can be read
    out of the panel.
    """
    introspection_for_all = settings.environment is not Environment.PRODUCTION

    async def authenticate(authorization: object) -> Caller:
        viewer = await verifier.verify(authorization)
        return Caller(
            name=viewer.person,
            group=viewer.caller,
            new_context=partial(Context.for_viewer, viewer, app.state.services),
            expires_at=connection_deadline(viewer),
            may_introspect=introspection_for_all or viewer.role is not Role.CUSTOMER,
            may_send_ad_hoc=viewer.role is Role.SUPPORT,
            lookup_cost=MISSED_LOOKUP_COST if viewer.role is Role.CUSTOMER else 0,
            own_ids=viewer.customers,
        )

    return authenticate


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


def _viewer_from_claims(claims: Mapping[str, Any]) -> Viewer:
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
    )
