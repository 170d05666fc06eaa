"""Translation of failed Stripe calls: into an error that says whether to retry, and an outcome for the budget."""

import stripe

from billing.budget import CallOutcome
from billing.errors import BillingError, KeyRefused, OutcomeUnknown, StripeBusy, StripeRejected
from billing.stripe.transport import NOT_SENT

UNAUTHORIZED, FORBIDDEN = 401, 403
REPLAYED_HEADER = "idempotent-replayed"
NO_ANSWER_TO_READ = "Stripe gave no usable answer; nothing was changed. Ask again in a moment."
NO_ANSWER_TO_WRITE = (
    "Stripe gave no usable answer; it may have been done all the same. Look again in a minute."
)
RATE_LIMIT_HEADER = "stripe-rate-limited-reason"


def translate(error: stripe.StripeError, method: str) -> BillingError:
    """Translate the SDK's *error* about a request with *method* into ours.

    The code is read from the body, because the SDK sets ``code`` on two of its classes only.
    """
    status, headers = error.http_status or 0, error.headers or {}
    if error.code == NOT_SENT:
        return StripeBusy("Stripe cannot be reached; nothing was sent.")
    if status in (UNAUTHORIZED, FORBIDDEN):
        return KeyRefused(whole=status == UNAUTHORIZED)
    details = error.json_body.get("error") if isinstance(error.json_body, dict) else None
    details = details if isinstance(details, dict) else {}
    code = details.get("code") or details.get("type")
    message = str(details.get("message") or f"Stripe answered {status}.")
    replayed = headers.get(REPLAYED_HEADER) == "true"
    if not replayed and status in (409, 429):
        return StripeBusy(f"Stripe is busy ({code}).", reason=headers.get(RATE_LIMIT_HEADER))
    if not replayed and status // 100 != 4:  # noqa: PLR2004 anything but a 4xx
        return OutcomeUnknown(NO_ANSWER_TO_READ if method == "GET" else NO_ANSWER_TO_WRITE)
    return StripeRejected(
        message,
        status=status,
        stripe_code=code,
        param=details.get("param"),
        request_id=headers.get("request-id"),
        replayed=replayed,
    )


def budget_outcome(failure: BillingError, *, sent: bool) -> CallOutcome:
    """The outcome to report to the budget: which limit was hit, or that the endpoint fails."""
    if isinstance(failure, StripeRejected):
        return CallOutcome.OK  # a rejection shows that the endpoint works
    if isinstance(failure, KeyRefused):
        return CallOutcome.REFUSED_GLOBALLY if failure.whole else CallOutcome.REFUSED
    if not (sent and isinstance(failure, StripeBusy)):
        return CallOutcome.FAILED
    scope = (failure.reason or "").partition("-")[0]
    return {"global": CallOutcome.LIMITED_GLOBALLY, "endpoint": CallOutcome.LIMITED}.get(
        scope,
        CallOutcome.LOCKED,
    )
