"""``python -m billing.ledger begin-epoch``: it asks, and then every process distrusts what it remembers."""

import asyncio
import os
import sys

import pytest
from redis.asyncio import Redis

from billing.errors import LeaseLost
from billing.ledger import Ledger
from tests.support.ledger import CUSTOMER, NOVEMBER, Clock, delta, open_ledger, outcomes

SECRET = "a-secret-for-the-tests-only-0123456789"


async def command(url: str, *arguments: str, typed: str = "") -> tuple[int, str]:
    """How ``python -m billing.ledger`` ends on the ledger at *url*, and what it says."""
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
    said, _ = await process.communicate(typed.encode())
    return process.returncode or 0, said.decode()


@pytest.fixture
async def ledger(redis: Redis) -> Ledger:
    """A gateway's ledger with one open period."""
    opened = await open_ledger(redis, Clock())
    await outcomes(opened, delta("a"))
    return opened


@pytest.mark.parametrize(("arguments", "typed"), [(["--yes"], ""), ([], "yes\n")])
async def test_an_epoch_is_begun_by_command(
    redis_url: str, ledger: Ledger, arguments: list[str], typed: str
) -> None:
    """Leases end, the period is compared with Stripe, and producers are told, by every gateway."""
    held = await ledger.acquire(CUSTOMER, NOVEMBER)
    assert held is not None
    _, before = await ledger.durability()

    status, said = await command(redis_url, "begin-epoch", *arguments, typed=typed)

    assert status == 0
    assert ": 1. With a new epoch" in said
    with pytest.raises(LeaseLost):
        await ledger.renew(held.lease)
    _, after = await ledger.durability()
    assert after != before
    assert f"{before} was followed by {after}" in said
    anew = await ledger.acquire(CUSTOMER, NOVEMBER)
    assert anew is not None
    assert anew.snapshot.verify_requested != anew.snapshot.verify_done


@pytest.mark.parametrize("typed", ["", "no\n", "y\n"])
async def test_nothing_is_done_unless_it_is_meant(
    redis_url: str, ledger: Ledger, typed: str
) -> None:
    """It costs reads for every open period."""
    held = await ledger.acquire(CUSTOMER, NOVEMBER)
    assert held is not None

    status, said = await command(redis_url, "begin-epoch", typed=typed)

    assert (status, "Nothing was done." in said) == (1, True)
    await ledger.renew(held.lease)


async def test_a_server_that_is_away_is_said() -> None:
    """In a sentence, and not in a traceback."""
    status, said = await command("redis://127.0.0.1:1/0", "begin-epoch", "--yes")

    assert status == 1
    assert "cannot be reached" in said
    assert "Traceback" not in said


async def test_help_says_what_it_is_for() -> None:
    """Somebody reads it in the middle of the night."""
    status, said = await command("redis://127.0.0.1:1/0", "begin-epoch", "--help")

    assert status == 0
    assert "restored or edited while it ran" in said
