"""Stripe's error bodies, and how an operation raises one."""

from typing import Any


class StripeError(Exception):
    """An answer that is an error; *detail* goes into its body.

    With ``keep`` what the request wrote before it failed stays: a declined card is recorded.
    """

    def __init__(self, status: int, message: str, *, keep: bool = False, **detail: Any) -> None:
        super().__init__(message)
        self.status, self.keep = status, keep
        self.headers: dict[str, str] = {}
        self.body = {"error": {"type": "invalid_request_error", "message": message} | detail}


def refuse(message: str, **detail: Any) -> StripeError:
    """Answer for a request that cannot be done as it stands: 400."""
    return StripeError(400, message, **detail)


def missing(noun: str, object_id: str, param: str | None = None) -> StripeError:
    """Answer for an id that names nothing: 404 in a path, 400 in a parameter."""
    message = f"No such {noun.replace('_', ' ')}: '{object_id}'"
    status, code = 400 if param else 404, "resource_missing"
    return StripeError(status, message, code=code, param=param or "id")


def unsimulated(feature: str) -> StripeError:
    """Answer for something Stripe has and this double does not: never silence, never a guess."""
    message = f"The sandbox does not simulate {feature}. Stripe does: try it in a Stripe sandbox."
    return StripeError(501, message, type="api_error", code="not_simulated")


def limited(reason: str | None) -> StripeError:
    """Answer of a limiter, for this *reason*; or of a lock, which gives none."""
    code, message = "rate_limit", "Request rate limit exceeded."
    if reason is None:
        code, message = "lock_timeout", "Another request is currently accessing this object."
    error = StripeError(429, message, code=code)
    error.headers["stripe-rate-limited-reason" if reason else "stripe-should-retry"] = (
        reason or "true"
    )
    return error


def broken(*, keep: bool = False) -> StripeError:
    """Answer of a Stripe that stumbled."""
    return StripeError(500, "An unknown error occurred.", keep=keep, type="api_error")
