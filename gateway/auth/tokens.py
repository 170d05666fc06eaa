"""Bearer tokens: a JWT, signed with HS256 or by a key of a JWKS, becomes a `Viewer` and a `Caller`.

Tokens are never logged.
"""

import contextlib
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
# What PyJWT and the conversion of claims raise for parts of a type or a size that they do not expect.
MALFORMED = (jwt.PyJWTError, TypeError, ValueError, OverflowError, AttributeError, RecursionError)


class TokenVerifier:
    """Verifies tokens with a shared *secret* (HS256), a *jwks* (asymmetric), or both, chosen by ``alg``.

    *previous_secret* is valid as well while the issuer changes to *secret*. With *issuer*, a token's ``iss`` must be it.
    """

    def __init__(
        self,
        secret: str | None,
        jwks: JwksClient | None,
        *,
        previous_secret: str | None = None,
        issuer: str | None = None,
    ) -> None:
        self._secrets = [text for text in (secret, previous_secret) if text is not None]
        self._jwks = jwks
        self._issuer = issuer

    async def verify(self, authorization: object) -> Viewer:
        """Return the bearer of *authorization* (``Bearer <JWT>``); HttpError 401 when it is not valid."""
        scheme, _, token = (
            authorization.partition(" ") if isinstance(authorization, str) else ("", "", "")
        )
        if scheme.lower() != "bearer" or not 0 < len(token) <= MAX_TOKEN_LENGTH:
            raise unauthenticated("Send a token: `Authorization: Bearer <JWT>`.")
        try:
            return _viewer_from_claims(await self._verify_signature(token.strip()))
        except jwt.ExpiredSignatureError:
            raise unauthenticated("The token has expired; get a new one.") from None
        except MALFORMED:
            raise unauthenticated("The token is not valid here; get a new one.") from None

    async def _verify_signature(self, token: str) -> dict[str, Any]:
        if self._jwks is None:
            return self._decode_by_secret(token)
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm == "HS256":
            return self._decode_by_secret(token)
        # Before the signature is verified any part may be of any JSON type.
        if isinstance(algorithm, str) and algorithm in ASYMMETRIC:
            key = await self._jwks.get_key(header.get("kid"))
            if key is not None and key.algorithm_name == algorithm:
                return self._decode(token, key, algorithm)
        raise jwt.InvalidKeyError

    def _decode_by_secret(self, token: str) -> dict[str, Any]:
        for secret in self._secrets[:-1]:
            with contextlib.suppress(jwt.InvalidSignatureError):
                return self._decode(token, secret, "HS256")
        if not self._secrets:
            raise jwt.InvalidKeyError
        return self._decode(token, self._secrets[-1], "HS256")

    def _decode(self, token: str, key: str | jwt.PyJWK, algorithm: str) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            [algorithm],
            {"require": ["aud", "exp", "sub"]},
            audience=AUDIENCE,
            issuer=self._issuer,
            leeway=LEEWAY,
        )
        return claims


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
