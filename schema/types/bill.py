"""The bill type: rows from a customer's usage to the amount that Stripe collects."""

import strawberry

from resolvers.bills import Bill as BillRecord
from resolvers.bills import BillRowKind
from schema.decorators import graphql_enum, graphql_type
from schema.types.money import Money

graphql_enum(
    USAGE="Lines of the invoice that the gateway made: recorded usage and its corrections.",
    OTHER_LINES="Lines that people or other systems added to the invoice.",
    PENDING_USAGE="Recorded usage that is not on the invoice yet.",
    DISCOUNT="Coupons of the invoice and of the customer; negative.",
    TAX="Tax that is added to the lines. Tax that the lines contain has no row: see `Invoice.tax`.",
    BALANCE="Customer's balance that the invoice uses: negative for credit, positive for debt.",
    CARRIED_TO_BALANCE="Amount that Stripe does not collect now: a negative total that becomes credit, or one below the minimum charge.",
    CREDIT_NOTES="Credit notes issued while the invoice was open; negative.",
)(BillRowKind)


@graphql_type
class BillRow:
    """One row of a bill."""

    kind: BillRowKind = strawberry.field(description="Kind of the row.")
    amount: Money = strawberry.field(description="Amount, negative when it lowers the bill.")
    estimated: bool = strawberry.field(
        description="True when Stripe has not computed the amount yet."
    )


@graphql_type
class Bill:
    """Everything between a customer's usage and the amount to pay, in rows that add up."""

    rows: list[BillRow] = strawberry.field(
        description="Rows with an amount, in the order of the calculation. Their sum is `amountDue`."
    )
    amount_due: Money = strawberry.field(
        description="Amount that Stripe asks for: its own `amount_due` unless `estimated`."
    )
    estimated: bool = strawberry.field(
        description="True when a row is estimated: discount and tax of pending usage are taken in proportion to those of the draft."
    )

    @classmethod
    def from_record(cls, bill: BillRecord) -> "Bill":
        """Convert a *bill*."""
        return cls(
            rows=[
                BillRow(
                    kind=row.kind,
                    amount=Money.from_minor(row.amount, bill.currency),
                    estimated=row.estimated,
                )
                for row in bill.rows
            ],
            amount_due=Money.from_minor(bill.amount_due, bill.currency),
            estimated=bill.is_estimate,
        )
