"""Arguments of queries, with their descriptions."""

from typing import Annotated

import strawberry

AnyId = Annotated[
    strawberry.ID,
    strawberry.argument(
        name="id", description="Id of any object, from Stripe or from the gateway."
    ),
]
Ids = Annotated[
    list[strawberry.ID],
    strawberry.argument(
        description="At most 100 ids, from Stripe or from the gateway, in any order."
    ),
]
CustomerIdArgument = Annotated[
    strawberry.ID, strawberry.argument(description="Id of the customer, `cus_…`.")
]
Month = Annotated[
    str | None, strawberry.argument(description='Month such as "2026-10"; default: this one.')
]
Email = Annotated[
    str | None,
    strawberry.argument(
        description="Only customers with exactly this e-mail address, in capitals or not."
    ),
]
