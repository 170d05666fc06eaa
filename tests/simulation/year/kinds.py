"""Kinds of trouble: what happens in a schedule, and how often."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.simulation.wire import DAY_MS

MONTHS_MS, YEAR_MS = 130 * DAY_MS, 380 * DAY_MS


@dataclass(frozen=True)
class Kind:
    """*deeds* are weights of what intervenes; *spans_ms* how much time a schedule may take."""

    name: str
    deeds: Mapping[str, int] = field(default_factory=dict)
    spans_ms: tuple[int, ...] = (40 * DAY_MS, MONTHS_MS)
    clocks: bool = False

    def __str__(self) -> str:
        return self.name


EVERYTHING = {
    "edit_draft": 4,
    "end_invoice": 2,
    "add_pending_item": 1,
    "revise": 2,
    "duplicate": 1,
    "void": 1,
    "delete_customer": 1,
    "change_price": 3,
    "support": 6,
    "lose_ledger": 1,
    "correct_currency": 1,
}

KINDS = (
    Kind("retention", {"support": 3, "retry": 2, "end_invoice": 1}, (YEAR_MS,)),
    Kind("prices", {"change_price": 6, "support": 1, "adjust": 2}),
    Kind("ledger", {"lose_ledger": 3, "support": 1, "adjust": 2}),
    Kind("dashboard", {"edit_draft": 8, "end_invoice": 1, "add_pending_item": 1}),
    Kind(
        "customers",
        {"delete_customer": 1, "void": 2, "revise": 3, "duplicate": 2, "support": 2}
        | {"end_invoice": 1, "correct_currency": 1, "finalize": 1},
    ),
    Kind("support", {"support": 10}, (40 * DAY_MS, YEAR_MS)),
    Kind("clocks", {"support": 1}, clocks=True),
    Kind("everything", EVERYTHING, (40 * DAY_MS, MONTHS_MS, YEAR_MS), clocks=True),
)
