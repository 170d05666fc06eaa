"""``python -m billing.ledger begin-epoch``: it asks for confirmation, then begins a new epoch."""

import asyncio
import os
import sys

import pytest
from redis.asyncio import Redis

from billing.errors import LeaseLost
from billing.ledger import Ledger
from tests.support.ledger import CUSTOMER, NOVEMBER, Clock, delta, open_ledger, outcomes

SECRET = "a-secret-for-the-tests-only-0123456789"


async def run_command(url: str, *arguments: str, typed: str = "") -> tuple[int, str]:
    """Run ``python -m billing.ledger`` on the ledger at *url*; return its exit status and output."""
    settings = {
        "REDIS_URL": url,
        "STRIPE_API_KEY": SECRET,
        "STRIPE_WEBHOOK_SECRETS": SECRET,
        "JWT_SECRET": SECRET,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "billing.ledger", *arguments),
        env=os.environ | {f"BILLING_{name}": value for name, value in settings.items()},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate(typed.encode())
    return process.returncode or 0, output.decode()


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


async def test_unreachable_server_is_reported_without_traceback() -> None:
    """The command exits with a sentence."""
    status, output = await run_command("redis://127.0.0.1:1/0", "begin-epoch", "--yes")

    assert status == 1
    assert "cannot be reached" in output
    assert "Traceback" not in output


async def test_help_describes_the_purpose() -> None:
    """An operator must recognize the situation it is for."""
    status, output = await run_command("redis://127.0.0.1:1/0", "begin-epoch", "--help")

    assert status == 0
    assert "restored or edited while it ran" in output
