"""The protections that the larger world tries, and how each is switched off."""

from billing.invoicing import metadata_keys, requests, rewind
from billing.invoicing.request_batch import RequestBatch
from billing.stripe.price_catalog import PriceCatalog
from resolvers import adjustments, invoices
from tests.simulation.mutation import Mutation, instead_of, lua
from tests.simulation.year import absences
from workers.flush import voided
from workers.flush.execution import FlushExecution

LOSSES = ("ledger",)

YEAR_PROTECTIONS = (
    Mutation(
        "A1: no flush begins a month that is forgotten",
        absences.begins_anew,
        ("retention", "support"),
    ),
    Mutation(
        "A2: a ledger that has lost usage gives nothing back by itself",
        lambda: instead_of(rewind, "lost_usage", lambda *_: []),
        LOSSES,
    ),
    Mutation(
        "A3: a correction counts at the price of the usage that it corrects",
        lambda: instead_of(adjustments, "_pinned_price", absences.nothing),
        ("prices",),
    ),
    Mutation(
        "A4: packages and plans count no usage",
        lambda: absences.problems_but("packages", "recurring"),
        ("prices",),
    ),
    Mutation(
        "A6: a deletion is decided anew when it is resumed",
        lambda: instead_of(RequestBatch, "deletes", False),
        ("dashboard", "everything"),
    ),
    Mutation(
        "A7: the ledger's own clock must agree that a month is over",
        lambda: lua("ended", "math.min(ARGV[3], now - ARGV[6])", "ARGV[3]"),
        ("clocks",),
    ),
    Mutation(
        "B1: an archived price is read by its id",
        lambda: instead_of(PriceCatalog, "_read", absences.nothing),
        ("prices",),
    ),
    Mutation("B2: the poll's cursor moves", absences.cursor_within_a_page, ("customers",)),
    Mutation(
        "B3: usage of a deleted customer is said to be unbillable",
        absences.no_deletion,
        ("customers",),
    ),
    Mutation(
        "B4: finalizing a copy of a sealed bill is refused",
        lambda: instead_of(invoices, "_is_closed", absences.false),
        ("customers",),
    ),
    Mutation(
        "B5: an operator corrects the currency of a first delta",
        lambda: lua(
            "register", "elseif known and (rank == 0 or rank < before) then", "elseif known then"
        ),
        ("customers",),
    ),
    Mutation(
        "C1: the words of a credit change with it", absences.words_as_first_written, ("support",)
    ),
    Mutation(
        "C3: a bill that was revised needs nobody",
        lambda: instead_of(voided, "MAX_REVISIONS", 0),
        ("customers",),
    ),
    Mutation(
        "F1: a carry raises the version of its month",
        lambda: lua(
            "seal",
            "redis.call('HSET', part(target), 'version', raised(following_header.version))",
            "",
        ),
        ("dashboard",),
    ),
    Mutation(
        "F2: usage bills take no pending items",
        absences.pending_items_included,
        ("dashboard", "everything"),
    ),
    Mutation(
        "F3: a price of an archived product is not sold",
        lambda: absences.problems_but("product is archived"),
        ("prices",),
    ),
    Mutation(
        "F4: the customer's own currency is that of the bill",
        absences.currency_of_the_price,
        ("customers", "retention"),
    ),
    Mutation(
        "F5: invoices of forgotten months remind nobody",
        absences.all_months_are_remembered,
        ("retention",),
    ),
    Mutation(
        "late usage counts at the price of its own month",
        lambda: lua("record", "origin and price_and_quantity(origin) or row[3]", "row[3]"),
        ("prices",),
    ),
    Mutation(
        "a void holds the customer",
        absences.no_void_hold,
        ("customers",),
    ),
    Mutation(
        "a revision is a person's",
        lambda: instead_of(metadata_keys, "revised_invoice", lambda _: None),
        ("everything",),
    ),
    Mutation("events that were not delivered are polled", absences.no_poll, ("customers",)),
    Mutation(
        "a hold waits behind another one",
        lambda: lua("hold", "redis.call('RPUSH', CUSTOMER .. ':holds', content)", ""),
        ("customers",),
    ),
    Mutation(
        "a surplus draft is deleted",
        absences.surplus_drafts_stay,
        ("dashboard", "everything"),
    ),
    Mutation(
        "a new epoch has every month verified",
        lambda: lua(
            "prelude", "return header.verify .. '@' .. epoch", "return header.verify .. '@'"
        ),
        LOSSES,
    ),
    Mutation(
        "months are cut again after a recovery",
        lambda: lua("prelude", "redis.call('ZREM', SHARD .. ':rewound', NAME)\n    for", "for"),
        LOSSES,
    ),
    Mutation(
        "a loss that was accepted is not held again",
        lambda: lua("hold", "redis.call('HEXISTS', CUSTOMER, cause) == 1", "false"),
        LOSSES,
    ),
    Mutation(
        "an archived price bills no new line",
        lambda: instead_of(requests._LineSerializer, "_is_billable", lambda *_: True),
        ("prices",),
    ),
    Mutation(
        "usage of a deleted customer is refused",
        lambda: lua("record", "deleted and 'g' or", ""),
        ("customers",),
    ),
    Mutation(
        "Stripe reminds the ledger of a period it has lost",
        lambda: instead_of(FlushExecution, "_recover_lost_periods", absences.nothing),
        LOSSES,
    ),
    Mutation(
        "what is carried at another price has a line of its own",
        lambda: lua("seal", "there and price_and_quantity(there) ~= price", "false"),
        ("everything", "ledger"),
    ),
    Mutation(
        "a month that ended early is kept until after its end",
        lambda: lua("seal", "math.max(now, end_of(period)) - now + ARGV[6]", "ARGV[6]"),
        ("dashboard",),
    ),
)
