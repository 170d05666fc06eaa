"""``python -m billing.ledger``: new epochs, new ledgers, and the decision after lost usage."""

from decimal import Decimal

import pytest
from redis.asyncio import Redis

from billing.audit import AuditLog
from billing.errors import LeaseLost
from billing.invoicing import rewind
from billing.invoicing.remote_invoice import RemoteInvoice
from billing.invoicing.snapshot import StripeLine
from billing.ledger import Ledger
from billing.ledger.books import Difference, DifferenceKind
from billing.usage import CustomerId, LineKey
from tests.support.ledger import CUSTOMER, NOVEMBER, OTHER, Clock, delta, open_ledger, outcomes
from tests.support.ledger_command import run_command


@pytest.fixture
async def ledger(redis: Redis) -> Ledger:
    """A gateway's ledger with one open period."""
    opened = await open_ledger(redis, Clock())
    await outcomes(opened, delta("a"))
    return opened


@pytest.mark.parametrize(("arguments", "typed"), [(["--yes"], ""), ([], "yes\n")])
async def test_command_begins_an_epoch(
    redis_url: str, ledger: Ledger, arguments: list[str], typed: str
) -> None:
    """Leases end, the period is verified against Stripe, and every gateway reports the new epoch."""
    leased = await ledger.leases.acquire(CUSTOMER, NOVEMBER)
    assert leased is not None
    _, before = await ledger.health.durability()

    status, output = await run_command(redis_url, "begin-epoch", *arguments, typed=typed)

    assert status == 0
    assert ": 1. With a new epoch" in output
    with pytest.raises(LeaseLost):
        await ledger.leases.renew(leased.lease)
    _, after = await ledger.health.durability()
    assert after != before
    assert f"{before} was followed by {after}" in output
    leased_again = await ledger.leases.acquire(CUSTOMER, NOVEMBER)
    assert leased_again is not None
    assert leased_again.snapshot.verify_requested != leased_again.snapshot.verify_done


@pytest.mark.parametrize("typed", ["", "no\n", "y\n"])
async def test_command_without_confirmation_does_nothing(
    redis_url: str, ledger: Ledger, typed: str
) -> None:
    """A new epoch costs reads for every open period."""
    leased = await ledger.leases.acquire(CUSTOMER, NOVEMBER)
    assert leased is not None

    status, output = await run_command(redis_url, "begin-epoch", typed=typed)

    assert (status, "Nothing was done." in output) == (1, True)
    await ledger.leases.renew(leased.lease)


async def test_command_lists_and_settles_the_books(redis_url: str, ledger: Ledger) -> None:
    """One customer's entries go, with a line in the audit log; the sums follow."""
    found = [
        Difference(CUSTOMER, NOVEMBER, DifferenceKind.LOST, -3100),
        Difference(OTHER, NOVEMBER, DifferenceKind.UNSENT, 250),
    ]
    await ledger.usage.register_customer(OTHER, "usd")
    await ledger.books.record(found)

    _, listed = await run_command(redis_url, "books")
    assert f"{CUSTOMER} {NOVEMBER} lost: -3,100 minor units" in listed
    status, output = await run_command(
        redis_url, "books", "--settle", CUSTOMER, "--reason", "credit note"
    )

    assert (status, "1 of" in output) == (0, True)
    sums = [backlog.difference_sums.get("usd", 0) for backlog in await ledger.due.backlogs()]
    assert sum(sums) == 250
    _, listed = await run_command(redis_url, "books")
    assert "Differences: 1." in listed


async def test_unreachable_server_is_reported_without_traceback() -> None:
    """The command exits with a sentence."""
    status, output = await run_command("redis://127.0.0.1:1/0", "begin-epoch", "--yes")

    assert status == 1
    assert "Nothing listens at the address." in output
    assert "Traceback" not in output
    assert "Traceback" not in output


async def test_help_describes_the_purpose() -> None:
    """An operator must recognize the situation it is for."""
    status, output = await run_command("redis://127.0.0.1:1/0", "begin-epoch", "--help")

    assert status == 0
    assert "restored or edited while it ran" in output


async def test_currency_of_a_customer_is_corrected(redis_url: str, ledger: Ledger) -> None:
    """Once nothing is counted in the other currency; who did it and why is in the audit log."""
    command = ("set-currency", CUSTOMER, "EUR", "--reason", "first delta had a wrong SKU")

    refused, why = await run_command(redis_url, *command)
    await outcomes(ledger, delta("b", "-1"))
    status, output = await run_command(redis_url, *command)

    assert (refused, status) == (1, 0)
    assert "has usage or an invoice in usd" in why
    assert f"{CUSTOMER} is billed in eur." in output
    assert await ledger.usage.registered_currencies([CUSTOMER]) == {CUSTOMER: "eur"}
    async with Redis.from_url(redis_url) as client:
        entries = (await AuditLog(client).page(CUSTOMER, 2)).items
    assert [(entry.action, entry.outcome, entry.actor) for entry in entries] == [
        ("setCurrency", "DONE", "operator"),
        ("setCurrency", "REFUSED", "operator"),
    ]


async def test_currency_of_an_unknown_customer_is_not_set(redis_url: str, ledger: Ledger) -> None:
    """A mistyped id registers nobody."""
    status, output = await run_command(
        redis_url, "set-currency", "cus_none", "eur", "--reason", "r"
    )

    assert status == 1
    assert "knows no customer cus_none" in output
    assert await ledger.usage.registered_currencies([CustomerId("cus_none")]) == {}


async def test_text_that_is_not_a_currency_is_refused(redis_url: str, ledger: Ledger) -> None:
    """The operator's word outranks Stripe's, so a typing error would reject all usage."""
    await outcomes(ledger, delta("a", "1"), delta("b", "-1"))
    status, output = await run_command(
        redis_url, "set-currency", CUSTOMER, "usdd", "--reason", "typing error"
    )

    assert status == 2
    assert "is not an ISO 4217 code" in output
    assert await ledger.usage.registered_currencies([CUSTOMER]) == {CUSTOMER: "usd"}


async def lose_usage(ledger: Ledger) -> None:
    """Find that an invoice shows three units of which the ledger has one."""
    leased = await ledger.leases.acquire(CUSTOMER, NOVEMBER)
    assert leased is not None
    shown = {LineKey("cpu"): StripeLine("il_1", Decimal(3), "price_cpu", 300)}
    await ledger.leases.commit(
        leased.lease, version="", verify=None, invoice="in_1", lines=shown, rewound=True
    )
    await ledger.leases.release(leased.lease)
    snapshot = await ledger.periods.snapshot(CUSTOMER, NOVEMBER)
    invoice = RemoteInvoice("in_1", "draft", 0, {}, ())
    lost = rewind.lost_usage(snapshot, shown.items(), {})
    reason = rewind.hold_reason(snapshot, invoice, lost)
    await ledger.holds.place_once(CUSTOMER, reason, "gateway", "rewind")


async def test_rewound_lists_customers_and_amounts(redis_url: str, ledger: Ledger) -> None:
    """An operator decides by the money at stake."""
    _, nothing = await run_command(redis_url, "rewound")
    await lose_usage(ledger)
    status, output = await run_command(redis_url, "rewound")

    assert "Customers with lost usage: 0." in nothing
    assert (status, f"{CUSTOMER} 2026-11 open in_1: USD 2.00 in 1 lines" in output) == (0, True)
    assert "Customers with lost usage: 1." in output


@pytest.mark.parametrize(
    ("arguments", "typed", "released"),
    [
        (["--yes"], "", True),
        (["--customer", CUSTOMER], "yes\n", True),
        (["--customer", OTHER, "--yes"], "", False),
        ([], "no\n", False),
    ],
)
async def test_accept_loss_releases_the_holds(
    redis_url: str, redis: Redis, ledger: Ledger, arguments: list[str], typed: str, released: bool
) -> None:
    """Only those for lost usage, with an entry in the audit log; a hold of Support's stays."""
    await lose_usage(ledger)
    await ledger.holds.place_once(CUSTOMER, "Invoice in_2 was voided.", "gateway", "void of in_2")

    why = ("--reason", "the server is lost")
    _, output = await run_command(redis_url, "accept-loss", *why, *arguments, typed=typed)

    hold = await ledger.holds.get(CUSTOMER)
    assert hold is not None
    assert ("voided" in hold.reason) is released
    entries = (await AuditLog(redis).page(CUSTOMER, 10)).items
    assert [(entry.action, entry.reason) for entry in entries] == (
        [("acceptLoss", "the server is lost")] if released else []
    )
    assert (f"{CUSTOMER} stays on hold by gateway: Invoice in_2" in output) is released


async def test_create_begins_a_ledger_on_an_empty_server(redis_url: str, redis: Redis) -> None:
    """Every other command names it as the cure; to begin one twice does no harm."""
    refused = await run_command(redis_url, "rewound")
    created = [await run_command(redis_url, "create") for _ in range(2)]
    status, _ = await run_command(redis_url, "rewound")

    assert (refused[0], "python -m billing.ledger create" in refused[1]) == (1, True)
    assert [result[0] for result in created] == [0, 0]
    assert await redis.get("ledger:shards") == b"64"
    assert status == 0
