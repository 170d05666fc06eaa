"""Stripe's error bodies, and how an operation raises one."""

from typing import Any


class StripeError(Exception):
    """An answer that is an error: *status*, and Stripe's error body with *detail* added to it.

    ``keep`` says that what the request wrote before it failed stays (a declined card is recorded).
    """

    def __init__(self, status: int, message: str, **detail: Any) -> None:
        super().__init__(message)
        self.status = status
        self.headers: dict[str, str] = {}
        self.keep = False
        self.body = {"error": {"type": "invalid_request_error", "message": message} | detail}


def refuse(message: str, **detail: Any) -> StripeError:
    """Answer for a request that cannot be done as it stands: 400."""
    return StripeError(400, message, **detail)


def missing(noun: str, object_id: str, param: str = "id", status: int = 404) -> StripeError:
    """Answer for an id that names nothing: 404 in a path, 400 in a parameter."""
    message = f"No such {noun}: '{object_id}'"
    return StripeError(status, message, code="resource_missing", param=param)


def unsimulated(feature: str) -> StripeError:
    """Answer for something Stripe has and this double does not: never silence, never a guess."""
    message = f"The sandbox does not simulate {feature}. Stripe does: try it in a Stripe sandbox."
    return StripeError(501, message, type="api_error", code="not_simulated")


def rate_limited(reason: str | None) -> StripeError:
    """Answer of a limiter (*reason* as in Stripe-Rate-Limited-Reason) or, without one, of a lock."""
    if reason is None:
        message = (
            "This object cannot be accessed right now because another API request or Stripe "
            "process is currently accessing it."
        )
        error = StripeError(429, message, code="lock_timeout")
        error.headers = {"stripe-should-retry": "true"}
        return error
    error = StripeError(429, "Request rate limit exceeded.", code="rate_limit")
    error.headers = {"stripe-rate-limited-reason": reason}
    return error


def broken() -> StripeError:
    """Answer of a Stripe that stumbled."""
    return StripeError(500, "An unknown error occurred.", type="api_error")
