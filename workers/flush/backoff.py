"""The wait after a flush that could not reach Stripe."""

from billing.errors import Overloaded, ShuttingDown, Unavailable
from billing.ledger.syncs import SyncFailure
from workers.flush.execution import FlushExecution
from workers.flush.outcome import RETRY_NOW, FlushOutcome, FlushResult


def unavailable_result(execution: FlushExecution, error: Unavailable) -> FlushResult:
    """Retry after a growing delay with jitter, not before the time that *error* names.

    What our own limits refused was never sent, which is no attempt: it is due again at about that time.
    """
    if isinstance(error, ShuttingDown):
        return RETRY_NOW  # by another worker; nothing has failed
    policy, random = execution.context.policy, execution.context.random()
    named = int(error.retry_after * 1000)
    if isinstance(error, Overloaded):
        spread = 1 + random / 2
        return FlushResult(FlushOutcome.WAITING, int(max(policy.retry_base_ms, named) * spread))
    exponent = min(execution.snapshot.attempts, 20)
    delay = min(policy.retry_cap_ms, policy.retry_base_ms << exponent)
    jittered = int(delay * (0.5 + random / 2))
    failure = SyncFailure(error.code, error.message)
    return FlushResult(FlushOutcome.RETRYING, max(named, jittered), failure)
