"""Runs the cases, and reports where Stripe and the sandbox differ."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import httpx

from sandbox.conformance import bills, clocks, lines, requests
from sandbox.conformance.account import CallFailed, TestAccount
from sandbox.conformance.probe import Case, Observation, Probe

CASES: Final[Mapping[str, Case]] = {
    **lines.CASES,
    **requests.CASES,
    **bills.CASES,
    **clocks.CASES,
}
# Guesses that no call can try → the reason.
UNTRIED: Final[Mapping[str, str]] = {
    "portal-and-webhooks": "a person looks at the portal; retries of webhooks take days",
    "delays": "not a difference: the medians of this run stand at the end",
}
ABOUT: Final = Path(__file__).parents[1] / "about.txt"


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one guess; *failure* if its case could not be finished."""

    guess: str
    observations: Sequence[Observation] = ()
    failure: str = ""
    request_ids: Sequence[str] = ()

    @property
    def verdict(self) -> str:
        """``agrees``, ``differs``, ``failed`` or ``untried``."""
        if self.guess in UNTRIED:
            return "untried"
        if not all(observation.agrees for observation in self.observations):
            return "differs"
        return "failed" if self.failure else "agrees"


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of all guesses; *left* could not be cleaned up, *medians* are seconds by kind of call."""

    results: Sequence[Result]
    left: Sequence[str]
    medians: Mapping[str, float]

    @property
    def is_clean(self) -> bool:
        """True if no guess was wrong and no case failed."""
        return all(result.verdict in ("agrees", "untried") for result in self.results)

    def as_text(self) -> str:
        """One line a guess; below it what differs."""
        rows = []
        for result in self.results:
            rows.append(f"{result.verdict:8} {result.guess}")
            rows += [
                f"{'':9}{seen.what}: expected {seen.expected!r}, seen {seen.seen!r}"
                for seen in result.observations
                if not seen.agrees
            ]
            if result.failure:
                rows.append(f"{'':9}not finished: {result.failure}")
            if result.guess in UNTRIED:
                rows.append(f"{'':9}{UNTRIED[result.guess]}")
            if result.verdict in ("differs", "failed"):
                rows.append(f"{'':9}requests: {' '.join(result.request_ids)}")
        times = ", ".join(
            f"{kind} {seconds * 1000:.0f} ms" for kind, seconds in self.medians.items()
        )
        rows += [f"Median times: {times}."]
        if self.left:
            rows.append(f"Not cleaned up: {', '.join(self.left)}.")
        return "\n".join(rows)

    def as_json(self) -> str:
        """The same for a program."""
        shown: list[dict[str, Any]] = [
            {
                "guess": result.guess,
                "verdict": result.verdict,
                "failure": result.failure or None,
                "request_ids": list(result.request_ids),
                "observations": [
                    {"what": seen.what, "expected": seen.expected, "seen": seen.seen}
                    for seen in result.observations
                ],
            }
            for result in self.results
        ]
        return json.dumps({"results": shown, "left": list(self.left)}, indent=2, default=str)


async def run(account: TestAccount, only: Collection[str] = ()) -> Report:
    """Try every guess, or *only* some, and clean up."""
    results = []
    for guess in guesses():
        if only and guess not in only:
            continue
        results.append(Result(guess) if guess in UNTRIED else await _try(account, guess))
    left = await account.clean_up()
    medians = {kind: median(times) for kind, times in account.seconds.items() if times}
    return Report(results, left, medians)


def guesses() -> list[str]:
    """The names of the guesses in ``about.txt``, in their order."""
    listed = ABOUT.read_text().partition("\nGuesses")[2].splitlines()[1:]
    return [line[2:].partition(":")[0] for line in listed]


async def _try(account: TestAccount, guess: str) -> Result:
    probe, failure = Probe(), ""
    account.request_ids.clear()
    try:
        await CASES[guess](account, probe)
    except (CallFailed, httpx.HTTPError, TimeoutError, KeyError, IndexError, TypeError) as error:
        failure = f"{type(error).__name__}: {error}"
    return Result(guess, probe.observations, failure, tuple(account.request_ids))
