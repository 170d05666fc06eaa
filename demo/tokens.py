"""The demo's tokens, as the contract describes them; production gets its tokens from Fly's own issuer."""

import os
import time
from collections.abc import Sequence

import jwt

from demo.home import REMEMBERED, DemoRefused, secret

LIFETIME = 7 * 86_400
ROLES = ("customer", "support", "metering")


def jwt_secret() -> str:
    """The secret that signs: ``BILLING_JWT_SECRET``, or the one that this demo made for itself."""
    given = os.environ.get("BILLING_JWT_SECRET")
    if not given and not REMEMBERED.exists():
        raise DemoRefused(
            "There is no secret to sign with: run `make up` once, or set BILLING_JWT_SECRET."
        )
    return given or secret("jwt_secret")


def token(role: str, customers: Sequence[str] = ()) -> str:
    """A bearer token for *role*, good for a week."""
    if role not in ROLES:
        raise DemoRefused(
            f"ROLE is one of {', '.join(ROLES)}; for example: make -s token ROLE=support"
        )
    if role == "customer" and not customers:
        raise DemoRefused(
            "A customer's token names its customer: make -s token ROLE=customer CUSTOMER=cus_…"
        )
    claims: dict[str, object] = {
        "sub": f"demo-{role}",
        "role": role,
        "aud": "fly-billing",
        "exp": int(time.time()) + LIFETIME,
    }
    if role == "customer":
        claims["customers"] = list(customers)
    return jwt.encode(claims, jwt_secret(), algorithm="HS256")
