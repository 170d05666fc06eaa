"""Findings of the doctor: what a check returns."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from billing.doctor.account import StripeAccount

EXAMPLES = 3


class Severity(StrEnum):
    """The weight of a finding."""

    OK = "ok"
    NOTICE = "notice"
    """Worth knowing; nothing has to be done."""
    WARNING = "warning"
    """Somebody will be billed in another way than expected, or not soon."""
    PROBLEM = "problem"
    """The gateway cannot work with this account."""
    UNKNOWN = "unknown"
    """It could not be looked at."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding: its *message*, one sentence, and the *cure*, empty if nothing has to be done."""

    severity: Severity
    message: str
    cure: str = ""


def ok(message: str) -> list[Finding]:
    """A finding that all is as it should be."""
    return [Finding(Severity.OK, message)]


Findings = Sequence[Finding]
CheckFunction = Callable[[StripeAccount], Awaitable[Findings]]
Checks = Mapping[str, CheckFunction]
"""Checks by name, ``area.subject``, in the order of the report."""


def examples(ids: Sequence[str]) -> str:
    """The first *ids*, and the number of the others."""
    shown = ", ".join(ids[:EXAMPLES])
    more = len(ids) - EXAMPLES
    return f"{shown} and {more} more" if more > 0 else shown


def of(severity: Severity, ids: Sequence[str], problem: str, cure: str, fine: str) -> list[Finding]:
    """A finding about the objects with *ids*, each with the *problem*; the finding *fine* if there are none."""
    if not ids:
        return ok(fine)
    return [Finding(severity, f"{problem}: {examples(ids)}.", cure)]
