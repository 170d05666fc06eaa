"""Counts of what a flush did at Stripe."""

from dataclasses import dataclass

from billing.invoicing.request_batch import RequestKind, StripeRequest


@dataclass(slots=True)
class FlushStats:
    """Counts of what this flush did at Stripe, for the Sync record."""

    lines_added: int = 0
    lines_updated: int = 0
    lines_removed: int = 0
    calls: int = 0

    def add(self, request: StripeRequest) -> None:
        """Count one request that was answered."""
        if request.kind is RequestKind.ADD_LINES:
            self.lines_added += len(request.lines)
        elif request.kind is RequestKind.UPDATE_LINES:
            self.lines_updated += len(request.lines)
        elif request.kind is RequestKind.REMOVE_LINES:
            self.lines_removed += len(request.lines)
