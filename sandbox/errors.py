"""Stripe's errors as exceptions."""

from typing import Any


class StripeError(Exception):
    """An error response; *detail* goes into its body.

    With *commit* the changes made before the failure stay: a declined card is recorded.
    """

    def __init__(self, status: int, message: str, *, commit: bool = False, **detail: Any) -> None:
        super().__init__(message)
        self.status, self.commit = status, commit
        self.headers: dict[str, str] = {}
        self.body = {"error": {"type": "invalid_request_error", "message": message} | detail}


def bad_request(message: str, **detail: Any) -> StripeError:
    """Return a 400: the request is invalid."""
    return StripeError(400, message, **detail)


def not_found(noun: str, object_id: str, param: str | None = None) -> StripeError:
    """Return the error for an unknown id: 404 in a path, 400 in a parameter."""
    message = f"No such {noun.replace('_', ' ')}: '{object_id}'"
    status, code = 400 if param else 404, "resource_missing"
    return StripeError(status, message, code=code, param=param or "id")


def not_simulated(feature: str) -> StripeError:
    """Return a 501: Stripe has the feature, the sandbox has not and does not ignore it."""
    message = f"The sandbox does not simulate {feature}. Stripe does: try it in a Stripe sandbox."
    return StripeError(501, message, type="api_error", code="not_simulated")


def rate_limited(reason: str | None) -> StripeError:
    """Return the 429 of a limiter, with its *reason*; or of an object lock, which has none."""
    code, message = "rate_limit", "Request rate limit exceeded."
    if reason is None:
        code, message = "lock_timeout", "Another request is currently accessing this object."
    error = StripeError(429, message, code=code)
    error.headers["stripe-rate-limited-reason" if reason else "stripe-should-retry"] = (
        reason or "true"
    )
    return error


def server_error(*, commit: bool = False) -> StripeError:
    """Return a 500."""
    return StripeError(500, "An unknown error occurred.", commit=commit, type="api_error")
