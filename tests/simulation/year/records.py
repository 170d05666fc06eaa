"""Records of what people did, and of what they were told."""

from typing import TYPE_CHECKING

from billing.invoicing.snapshot import Hold
from billing.usage import CustomerId, Period
from tests.simulation.oracle import Violation
from tests.simulation.wire import DAY_MS
from tests.simulation.year.bills import Bills, Invoice, month_of

if TYPE_CHECKING:
    from tests.simulation.year.world import YearWorld

# A void is seen in a month that the ledger still has; it forgets a month after a hundred days.
REMEMBERED_MS = 75 * DAY_MS


class Records:
    """*foreign* are people's lines, *edited* drafts by the time of the last edit, *voided* bills that are void.

    *accepted* are customers whose last loss was accepted.
    *sealed* are months as they were last seen, *duplicates* copies of bills, *reasons* those of all holds.
    """

    def __init__(self, world: "YearWorld") -> None:
        self._world = world
        self.bills = Bills(world.stripe, self.is_ours)
        self.sealed: set[tuple[str, Period]] = set()
        self.duplicates: set[str] = set()
        self.accepted: set[str] = set()
        self.pending_items = 0
        self.foreign: dict[str, tuple[str, int]] = {}
        self.edited: dict[str, int] = {}
        self.edited_customers: set[str] = set()
        self.voided: dict[str, bool] = {}
        self.reasons: list[str] = []
        self.promised: set[str] = set()

    def require(self, holds: bool, otherwise: str) -> None:
        """Stop the schedule unless *holds*."""
        if not holds:
            raise Violation(otherwise)

    def is_ours(self, invoice: Invoice) -> bool:
        """True for an invoice of the gateway's: no revision and no copy of a bill."""
        copied = invoice.get("from_invoice") or invoice["id"] in self.duplicates
        return bool(invoice["metadata"].get("gw_period")) and not copied

    def is_sealed(self, invoice: Invoice) -> bool:
        """True if the invoice's month was sealed when it was last looked at."""
        return (invoice["customer"], month_of(invoice)) in self.sealed

    def record_edit(self, draft: Invoice) -> None:
        """Record that a person changed a draft of the gateway's."""
        self.edited[draft["id"]] = self._world.now
        self.edited_customers.add(draft["customer"])

    def record_void(self, invoice: Invoice) -> None:
        """Record a void; a hold is owed if the ledger still has the month."""
        month = month_of(invoice) if invoice["metadata"].get("gw_period") else None
        ended = month.end.timestamp() * 1000 if month else 0
        self.voided[invoice["id"]] = ended + REMEMBERED_MS > self._world.now
        self.edited_customers.add(invoice["customer"])

    def record_foreign_line(self, invoice: str, line: Invoice) -> None:
        """Record a person's line: nobody else may change it."""
        self.foreign[line["id"]] = invoice, line["amount"]

    def protect(self, copied: Invoice) -> None:
        """Record all lines of a revision or copy as a person's."""
        for line in copied["lines"]:
            self.record_foreign_line(copied["id"], line)

    def unregister_foreign_lines(self, invoice: str) -> None:
        """Forget the lines of a draft that a person deleted or cleared."""
        self.foreign = {line: at for line, at in self.foreign.items() if at[0] != invoice}

    def promise_final(self, invoice: str) -> None:
        """Record that Support was told of no reason not to finalize *invoice*."""
        self.promised.add(invoice)

    def accept_loss(self, customer: CustomerId) -> None:
        """Record that a person accepts what the ledger has lost of *customer*."""
        self.accepted.add(customer)

    def check_hold(self, customer: CustomerId, hold: Hold) -> None:
        """Check that a hold of the gateway's has a cause, and remember that it was shown."""
        self.reasons.append(hold.reason)
        if hold.by != "gateway":
            return
        if "has lost usage" in hold.reason:
            self.require(self._world.losses > 0, f"{customer} held without a loss: {hold.reason}")
            self.accept_loss(customer)
        else:
            named = [invoice for invoice in self.voided if f"{invoice} " in f"{hold.reason} "]
            revised = [invoice for invoice in self.voided if f"{invoice}," in hold.reason]
            self.require(bool(named or revised), f"{customer} held without a void: {hold.reason}")
