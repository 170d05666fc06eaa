"""Tokens for the demo, signed with its own secret; in production Fly's issuer signs them."""

import os
import re
import time
from collections.abc import Sequence

import jwt

from demo.home import STATE_FILE, DemoError, secret

LIFETIME = 7 * 86_400
CUSTOMER_ID = re.compile(r"cus_\w+", re.ASCII)
ROLES = ("customer", "support", "metering")


def jwt_secret() -> str:
    """Return the signing secret: ``BILLING_JWT_SECRET``, or the one that the demo created."""
    configured = os.environ.get("BILLING_JWT_SECRET")
    if not configured and not STATE_FILE.exists():
        raise DemoError(
            "There is no secret to sign with: run `make up` once, or set BILLING_JWT_SECRET."
        )
    return configured or secret("jwt_secret")


def token(role: str, customers: Sequence[str] = ()) -> str:
    """Return a bearer token for *role*, valid for a week."""
    if role not in ROLES:
        raise DemoError(
            f"ROLE is one of {', '.join(ROLES)}; for example: make -s token ROLE=support"
        )
    if role == "customer" and not customers:
        raise DemoError(
            "A customer's token names its customer: make -s token ROLE=customer CUSTOMER=cus_…"
        )
    for customer in customers:
        if not CUSTOMER_ID.fullmatch(customer):
            raise DemoError(
                f"CUSTOMER is a Stripe id, cus_…, and not {customer!r}: the bill that `make up` links to has "
                "one, and the tab Find of /graphiql finds it by name."
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
