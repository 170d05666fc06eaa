"""The connection, as the reads of the other checks found it."""

from statistics import median

from billing.doctor.account import StripeAccount
from billing.doctor.findings import Checks, Finding, Findings, Severity, ok
from billing.stripe import API_VERSION

SLOW_SECONDS = 1.0
NOTICED_SECONDS = 2.0
REFUSED_SECONDS = 60.0


async def check_version(account: StripeAccount) -> Findings:
    """Stripe answers in the version that was requested."""
    if account.versions == {API_VERSION}:
        return ok(f"Stripe answers in API version {API_VERSION}.")
    others = ", ".join(sorted(account.versions - {API_VERSION}))
    cure = "Let nothing between the gateway and Stripe change the Stripe-Version header."
    return [Finding(Severity.PROBLEM, f"Answers came in API version {others}.", cure)]


async def check_clock(account: StripeAccount) -> Findings:
    """Signatures and closing times depend on this machine's clock."""
    if not account.clock_differences:
        return [Finding(Severity.UNKNOWN, "Stripe's answers have no Date.")]
    seconds = median(account.clock_differences)
    if abs(seconds) < NOTICED_SECONDS:
        return ok("This machine's clock agrees with Stripe's.")
    severity = Severity.PROBLEM if abs(seconds) > REFUSED_SECONDS else Severity.WARNING
    word = "ahead of" if seconds > 0 else "behind"
    message = f"This machine's clock is {abs(seconds):.0f} s {word} Stripe's."
    return [Finding(severity, message, "Run a time service such as chrony.")]


async def check_speed(account: StripeAccount) -> Findings:
    """A slow way to Stripe makes closing a month long."""
    seconds = median(account.seconds)
    if seconds < SLOW_SECONDS:
        return ok(f"Half of the reads took less than {seconds * 1000:.0f} ms.")
    cure = "Run the gateway nearer to Stripe (us-east, us-west), or look for a slow proxy."
    return [Finding(Severity.WARNING, f"Half of the reads took {seconds:.1f} s or more.", cure)]


async def check_limits(account: StripeAccount) -> Findings:
    """A limit that refuses a check's few reads is used up by another program."""
    if not account.limited:
        return ok("No limit of Stripe's refused a read.")
    reasons = ", ".join(f"{reason} ({count})" for reason, count in account.limited.items())
    cure = (
        "Find the program that uses the account's rate, and lower BILLING_STRIPE_SHARE meanwhile."
    )
    return [Finding(Severity.WARNING, f"Stripe's limits refused reads: {reasons}.", cure)]


CHECKS: Checks = {
    "api.version": check_version,
    "api.clock": check_clock,
    "api.speed": check_speed,
    "api.limits": check_limits,
}
