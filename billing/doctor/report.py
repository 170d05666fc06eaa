"""The doctor's report: every check with its findings, as text or JSON."""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from billing.doctor.account import CannotRead, KeyLacksRight, StripeAccount
from billing.doctor.checks import api, company, customers, invoices, key, prices, webhooks
from billing.doctor.findings import CheckFunction, Finding, Findings, Severity

AREAS = (key, company, webhooks, prices, customers, invoices, api)
SIGNS = {
    Severity.OK: "ok     ",
    Severity.NOTICE: "notice ",
    Severity.WARNING: "WARNING",
    Severity.PROBLEM: "PROBLEM",
    Severity.UNKNOWN: "unknown",
}
EDIT_KEY = "Give the key this right in the Dashboard (Developers, API keys)."


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The findings of the check called *name*."""

    name: str
    findings: Sequence[Finding]


@dataclass(frozen=True, slots=True)
class Report:
    """The results of all checks, and the number of reads they took."""

    results: Sequence[CheckResult]
    reads: int

    @property
    def counts(self) -> Counter[Severity]:
        """The number of findings of each severity."""
        return Counter(finding.severity for result in self.results for finding in result.findings)

    @property
    def exit_code(self) -> int:
        """1 if there is a problem, else 0."""
        return int(self.counts[Severity.PROBLEM] > 0)

    def as_text(self) -> str:
        """One line a finding, the cure below it."""
        lines = []
        for result in self.results:
            for finding in result.findings:
                lines.append(f"{SIGNS[finding.severity]}  {result.name:24}  {finding.message}")
                if finding.cure:
                    lines.append(f"{'':35}{finding.cure}")
        summary = ", ".join(f"{self.counts[severity]} {severity}" for severity in Severity)
        return "\n".join(
            [*lines, "", f"{len(self.results)} checks, {self.reads} reads: {summary}."]
        )

    def as_json(self) -> str:
        """An object with ``checks``, ``counts`` and ``reads``."""
        found: list[dict[str, Any]] = [
            {
                "check": result.name,
                "severity": finding.severity,
                "message": finding.message,
                "cure": finding.cure or None,
            }
            for result in self.results
            for finding in result.findings
        ]
        counts = {severity: self.counts[severity] for severity in Severity}
        return json.dumps({"checks": found, "counts": counts, "reads": self.reads}, indent=2)


async def examine(account: StripeAccount) -> Report:
    """Run every check; AccountUnreachable if nothing can be read."""
    with suppress(CannotRead):
        await account.get("/v1/prices", {"limit": 1})
    results = [
        CheckResult(name, await _run(check, account))
        for area in AREAS
        for name, check in area.CHECKS.items()
    ]
    return Report(results, account.reads)


async def _run(check: CheckFunction, account: StripeAccount) -> Findings:
    try:
        return await check(account)
    except CannotRead as failure:
        cure = EDIT_KEY if isinstance(failure, KeyLacksRight) else ""
        return [Finding(Severity.UNKNOWN, f"Not checked: {failure}.", cure)]
