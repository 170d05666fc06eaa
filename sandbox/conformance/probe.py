"""A probe: what one case expected, and what it saw."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from sandbox.conformance.account import Answer, TestAccount


@dataclass(frozen=True, slots=True)
class Observation:
    """One thing that was looked at; *expected* is the sandbox's guess."""

    what: str
    expected: Any
    seen: Any

    @property
    def agrees(self) -> bool:
        """True if the guess was right."""
        return bool(self.expected == self.seen)


@dataclass(slots=True)
class Probe:
    """The observations of one case."""

    observations: list[Observation] = field(default_factory=list)

    def expect(self, what: str, expected: Any, seen: Any) -> None:
        """Note an observation."""
        self.observations.append(Observation(what, expected, seen))

    def expect_refusal(self, what: str, answer: Answer, code: str | None = None) -> None:
        """Note if a call was refused with a 400, and with its *code* if one is expected."""
        seen = (answer.status, answer.error.get("code")) if code else answer.status
        self.expect(what, (400, code) if code else 400, seen)


Case = Callable[[TestAccount, Probe], Awaitable[None]]
