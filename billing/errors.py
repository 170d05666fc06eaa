"""The error tree; classes differ only where a caller acts differently.

::

    BillingError ─┬─ Refused ── change the request ─┬─ MixedCurrencies
                  │                                 ├─ StripeRejected ── plan anew
                  │                                 │  └─ UnreadableAnswer
                  │                                 └─ KeyExpired ────── plan anew
                  ├─ Unavailable ── retry later ────┬─ Overloaded ────── our own limit, nothing sent
                  │                                 │  ├─ ShareUsed ──── the limit of one caller alone
                  │                                 │  └─ ShuttingDown ─ another process resumes at once
                  │                                 ├─ KeyRefused ────── our API key is wrong, not executed
                  │                                 ├─ StripeBusy ────── not executed, same key later
                  │                                 ├─ OutcomeUnknown ── perhaps executed, same key later
                  │                                 └─ LedgerUnavailable
                  ├─ LeaseLost ───── another worker has taken over: stop writing
                  └─ UnknownPeriod ─ there is nothing to flush
"""

import math
from enum import StrEnum


class ErrorCode(StrEnum):
    """Error code of an expected refusal."""

    NOT_FOUND = "NOT_FOUND"
    INVALID_INPUT = "INVALID_INPUT"
    UNKNOWN_SKU = "UNKNOWN_SKU"
    UNUSABLE_PRICE = "UNUSABLE_PRICE"
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"
    NOT_DRAFT = "NOT_DRAFT"
    ON_HOLD = "ON_HOLD"
    PERIOD_CLOSED = "PERIOD_CLOSED"
    SYNC_IN_PROGRESS = "SYNC_IN_PROGRESS"
    DRIFT = "DRIFT"
    STRIPE_REJECTED = "STRIPE_REJECTED"
    STRIPE_UNAVAILABLE = "STRIPE_UNAVAILABLE"
    LEDGER_UNAVAILABLE = "LEDGER_UNAVAILABLE"
    OVERLOADED = "OVERLOADED"


class BillingError(Exception):
    """Base of every error that the gateway itself raises."""


class Refused(BillingError):
    """The request cannot be carried out as it stands; *message* names the cure and may be shown.

    *path* points at the offending input field, outermost first. *retry_after*: seconds until the same request
    may succeed, because what refused it may be out of date; None: never.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        path: tuple[str, ...] | None = None,
        *,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.path = path
        self.retry_after = retry_after


class MixedCurrencies(Refused):
    """Two amounts in different currencies cannot be added."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(
            ErrorCode.INVALID_INPUT,
            f"Amounts in {one} and {other} cannot be added; bill each currency on its own.",
        )


class StripeRejected(Refused):
    """Stripe refused for good under this idempotency key: read its state and plan anew.

    *param* is the parameter that Stripe blames. *replayed* is true when Stripe repeated a stored failure
    (``Idempotent-Replayed``): it will repeat it for as long as the key lives.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        stripe_code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        replayed: bool = False,
    ) -> None:
        super().__init__(ErrorCode.STRIPE_REJECTED, message)
        self.status = status
        self.stripe_code = stripe_code
        self.param = param
        self.request_id = request_id
        self.replayed = replayed


class UnreadableAnswer(StripeRejected):
    """An object of Stripe's lacks a field that is needed, or has one of another form.

    Its API version is another one than ours. Nothing of the answer is repeated but the name of the field.
    """

    CAUSES = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)
    """What the conversion of such an object raises."""

    def __init__(self, what: str, cause: Exception) -> None:
        missing = isinstance(cause, KeyError) and bool(cause.args)
        has = f"no `{cause.args[0]}`" if missing else "a field of an unknown form"
        super().__init__(
            f"Stripe's answer about {what} has {has}; check the API version of the Stripe client.",
            status=200,
            stripe_code="unreadable_answer",
        )


class KeyExpired(Refused):
    """An idempotency key is too old to be sent again: Stripe may have pruned it after 24 hours."""

    def __init__(self) -> None:
        super().__init__(
            ErrorCode.STRIPE_REJECTED,
            "This write was planned more than 20 hours ago; Stripe's state is read before planning anew.",
        )


class Unavailable(BillingError):
    """A temporary failure; retry after *retry_after* seconds."""

    code = ErrorCode.STRIPE_UNAVAILABLE

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after

    @property
    def whole_seconds(self) -> int:
        """*retry_after* in whole seconds, at least 1: the value of a ``Retry-After`` header."""
        return max(1, math.ceil(self.retry_after))


class Overloaded(Unavailable):
    """Our own limit refused the call before anything was sent."""

    code = ErrorCode.OVERLOADED


class ShareUsed(Overloaded):
    """The caller has used its share of a limit that callers share; the others' calls go on."""


class ShuttingDown(Overloaded):
    """Shutting down: no further calls; another worker resumes."""

    def __init__(self) -> None:
        super().__init__("This process is ending; another one goes on.", retry_after=0.1)


class KeyRefused(Unavailable):
    """Stripe refuses our API key, for this call or as a *whole*: our configuration, and no answer about the object."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__(
            "Stripe refuses this gateway's key, so nothing was done; its operators have to correct that.",
            retry_after=60,
        )
        self.whole = whole


class StripeBusy(Unavailable):
    """Stripe did not execute the request (limiter 429, lock timeout, 409): same key, later.

    *reason* is Stripe's ``Stripe-Rate-Limited-Reason``, None for a lock timeout or a conflict.
    """

    def __init__(
        self, message: str, *, retry_after: float = 1.0, reason: str | None = None
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.reason = reason


class OutcomeUnknown(Unavailable):
    """The request may have been executed (no answer, or a 5xx that is not a replay): same key, later."""


class LedgerUnavailable(Unavailable):
    """The ledger's Redis cannot be reached, or is not durable enough to be trusted with money."""

    code = ErrorCode.LEDGER_UNAVAILABLE


class LeaseLost(BillingError):
    """Another worker now has the lease on the customer's period: stop writing at once."""


class UnknownPeriod(BillingError):
    """The ledger has no such period and accepts no usage for it: it never had any, or was forgotten."""
