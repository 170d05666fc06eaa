"""The protections that the small world tries, and how each is switched off.

A line that no longer exists is an error, so no mutation becomes stale unnoticed.
"""

from billing.invoicing import carry_forward, requests, rewind
from billing.invoicing.request_batch import RequestBatch
from tests.simulation import absences
from tests.simulation.mutation import Mutation, instead_of, lua
from workers.flush import flush
from workers.flush import rewind as rewind_steps
from workers.flush.execution import FlushExecution

COUNTER = "string.match(%sfence or '', '^%%d+')"
CLEAN = "header.version == header.synced"
RAISED = "'version', raised(following_header.version)"
LEASED = "header and header.fence == fence and header.epoch == epoch"


PROTECTIONS = (
    Mutation("an id counts once", absences.every_id_is_new),
    Mutation(
        "counting marks as due in the same step",
        lambda: lua("record", "due_within(period, ARGV[9])", ""),
    ),
    Mutation(
        "a cut period takes no usage",
        lambda: lua("prelude", "while not takes_usage(period, settle) do", "while false do"),
    ),
    Mutation(
        "late usage begins no month that has ended",
        lambda: lua("prelude", "return now < end_of(period) + settle", "return true"),
    ),
    Mutation(
        "clean means: the version that was told is the one recorded",
        lambda: lua("prelude", CLEAN, "true"),
    ),
    Mutation(
        "what is told is the version that was planned, not the newest",
        lambda: lua("commit", "set('synced', ARGV[5])", "set('synced', header.version)"),
    ),
    Mutation(
        "a lease is fenced",
        lambda: lua("prelude", LEASED, "header and header.fence"),
        ("plain", "rewinds"),
    ),
    Mutation(
        "a fence is more than a counter",
        lambda: lua("prelude", LEASED, f"header and {COUNTER % 'header.'} == {COUNTER % ''}"),
        ("rewinds", "edits, rewinds"),
    ),
    Mutation("requests are written down before they are sent", absences.no_write_ahead),
    Mutation("a request keeps its key", absences.random_keys),
    Mutation("a request without an answer is not given up", absences.drops_on_timeout),
    Mutation("no key is sent after 20 hours", absences.keys_for_ever),
    Mutation("an error that is replayed is final", absences.stored_errors_are_retried),
    Mutation(
        "nothing is added without having looked",
        lambda: instead_of(flush, "_must_fetch", absences.fetches_once),
        ("rewinds", "edits, rewinds"),
    ),
    Mutation(
        "invoices are listed before one is made or a period ends",
        absences.no_listing,
        ("rewinds", "edits, rewinds"),
    ),
    Mutation(
        "an invoice that is gone gets a successor of its own key",
        absences.no_generation,
        ("edits", "edits, rewinds"),
    ),
    Mutation("of a doubled line one goes", absences.doubles_stay, ("refusals",)),
    Mutation(
        "a period is sealed by what its invoice says",
        lambda: instead_of(carry_forward, "residuals", lambda *_: {}),
        ("edits",),
    ),
    Mutation(
        "what is left goes to a period that is open",
        lambda: lua("seal", "landing(following(period), ARGV[7])", "following(period)"),
        ("edits", "edits, rewinds"),
    ),
    Mutation(
        "what is left raises the version of the period that it goes to",
        lambda: lua("seal", f"redis.call('HSET', part(target), {RAISED})", ""),
        ("edits",),
    ),
    Mutation(
        "no flush begins a month that is forgotten",
        lambda: lua("acquire", "not before and not takes_usage(period, ARGV[6])", "false"),
    ),
    Mutation("a request without an answer may still arrive", absences.no_doubt, ("refusals",)),
    Mutation(
        "nothing is finalized while a request may still arrive",
        absences.no_quiet_time,
        ("refusals",),
    ),
    Mutation(
        "an old intent to finalize is decided anew",
        lambda: instead_of(
            FlushExecution, "_max_age_ms", lambda execution, _: execution.context.policy.key_ttl_ms
        ),
        ("edits",),
    ),
    Mutation(
        "a deletion is decided anew when it is resumed",
        lambda: instead_of(RequestBatch, "deletes", False),
        ("edits",),
    ),
    Mutation("a hold stops the flush", absences.no_hold),
    Mutation(
        "nothing is finalized without a correction made meanwhile",
        lambda: lua("prepare", "ARGV[7] ~= header.version", "false"),
    ),
    Mutation(
        "a bill that is being finalized takes no correction",
        lambda: lua("prelude", "ops[1][1] == 'finalize'", "ops[1][1] == 'never'"),
    ),
    Mutation(
        "a bill that may yet become final takes no correction",
        lambda: lua("prelude", "now <= (header.ambiguous_ms or 0) + quiet", "false"),
        ("refusals",),
    ),
    Mutation(
        "a bill that is final takes no correction",
        lambda: lua(
            "prelude", "header.state == 'sealed' or header.final", "header.state == 'sealed'"
        ),
    ),
    Mutation(
        "a ledger that has lost usage gives nothing back",
        lambda: instead_of(rewind, "lost_usage", lambda *_: []),
        ("rewinds", "edits, rewinds"),
    ),
    Mutation(
        "a hold for lost usage is placed by the lease's worker",
        lambda: instead_of(rewind_steps, "_commit", absences.nothing),
    ),
    Mutation(
        "Stripe reminds the ledger of a period it has lost",
        absences.no_recovery,
        ("rewinds", "edits, rewinds"),
    ),
    Mutation(
        "a draft is looked at once more when a request was given up",
        lambda: lua("prelude", ", 'look_again_ms', now + ms", ""),
        ("refusals",),
    ),
    Mutation(
        "an archived price bills no new line",
        lambda: instead_of(requests._LineSerializer, "_is_billable", lambda *_: True),
    ),
    Mutation(
        "an amount of ours is read back as its quantity",
        absences.unmarked_amounts,
    ),
    Mutation(
        "a request that a restart gave up may still arrive",
        lambda: lua("acquire", "given_up(period, ARGV[5])", ""),
        ("rewinds", "edits, rewinds"),
    ),
    Mutation("other people's lines take room", absences.room_for_all, ("edits, cramped",)),
    Mutation(
        "a rewound server is noticed", absences.unnoticed_rewind, ("rewinds", "edits, rewinds")
    ),
)
