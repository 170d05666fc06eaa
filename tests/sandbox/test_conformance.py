"""The conformance run: clean against our own sandbox, and exact about a double that differs."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from sandbox import admin, invoices, lines, payments, resources, totals
from sandbox.__main__ import create_app
from sandbox.admin import Sandbox
from sandbox.conformance import account as conformance_account
from sandbox.conformance.account import TestAccount, WrongAccount, flatten
from sandbox.conformance.run import CASES, UNTRIED, guesses, run
from sandbox.settings import Settings


@asynccontextmanager
async def account_of(sandbox: Sandbox) -> AsyncIterator[TestAccount]:
    """An account of *sandbox*, served in this process, so that a test can bend it."""
    transport = httpx.ASGITransport(create_app(sandbox))
    timers = asyncio.create_task(sandbox.run())
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as http:
        yield TestAccount(http, "sk_test_conformance")
    timers.cancel()


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A sandbox with limits and without delays, whose timers and waits are quick."""
    monkeypatch.setattr(admin, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(conformance_account, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(conformance_account, "WAIT_SECONDS", 3)
    return Sandbox(Settings(latency=False))


def test_every_guess_has_a_case() -> None:
    """No more and no fewer: a guess that nobody tries is a belief."""
    assert CASES.keys() | UNTRIED.keys() == set(guesses())
    assert not CASES.keys() & UNTRIED.keys()


async def test_our_own_sandbox_agrees_with_its_guesses(sandbox: Sandbox) -> None:
    """Nothing differs, and nothing is left behind but finalized invoices."""
    async with account_of(sandbox) as account:
        report = await run(account)

    assert report.is_clean, report.as_text()
    assert report.left == []
    rows = sandbox.account.rows
    assert [row for row in rows["customers"].values() if not row.get("deleted")] == []
    assert {row["status"] for row in rows["invoices"].values()} <= {"void", "paid", "uncollectible"}
    assert [row for row in rows["products"].values() if row.get("active", True)] == []


def _half_even(quantity: str, unit: str) -> int:
    return round(float(quantity) * float(unit))


def _delete_with_drafts(account: Any, _: Any, customer: str) -> Any:
    for draft in list(account.owned_by("invoices", customer).values()):
        if draft["status"] == "draft":
            account.remove("invoices", draft)
    account.remove("customers", account.get("customers", customer))
    return account.put("customers", {"id": customer, "deleted": True})


def _all_to_the_first(amount: int, weights: dict[int, int]) -> dict[int, int]:
    return {name: amount if number == 0 else 0 for number, name in enumerate(weights)}


# Guess, what differs, and the part of the sandbox that another one takes the place of.
BENT: list[tuple[str, str, Any, str, Any]] = [
    ("line-rounding", "amount of 1 at 0.5", lines, "line_amount", _half_even),
    ("bulk-calls", "251 lines", lines, "MAX_LINES", 500),
    (
        "package-prices",
        "2,500 units in packages of 1,000 at 5.00",
        lines,
        "billed_quantity",
        lambda _account, quantity, _price: quantity,
    ),
    (
        "package-prices",
        "a new line at an archived price",
        lines,
        "require_billable",
        lambda *_: None,
    ),
    ("discounts", "100 off three lines of 100", totals, "_split", _all_to_the_first),
    ("tax", "a negative line", lines, "require_taxable", lambda *_: None),
    ("tax-location", "finalization", invoices, "require_location", lambda *_: None),
    ("minimum-charge", "status of 49", invoices, "MINIMUM_CHARGE", 0),
    ("finalization-time", "hours after its creation", invoices, "HOUR", 7200),
    ("payment-retries", "days until the first retry", payments, "RETRY_DELAYS", (86_400,)),
]


def _bend_operation(sandbox: Sandbox, endpoint: str, handler: Callable[..., Any]) -> None:
    """Let *handler* answer *endpoint*."""
    operation = sandbox.routes.operations[endpoint]
    bent = operation._replace(handler=handler)
    for patterns in sandbox.routes._patterns.values():
        patterns[:] = [(p, bent if old is operation else old) for p, old in patterns]


def _touch_customer(account: Any, params: Any, customer: str) -> Any:
    old = account.get("customers", customer)
    account.emit("customer.updated", "customers", old)
    return account.change("customers", old, params)


BENT_OPERATIONS: list[tuple[str, str, str, Callable[..., Any]]] = [
    ("no-op-update", "events", "POST /v1/customers/{customer}", _touch_customer),
    (
        "deletions",
        "status of a deleted customer's draft",
        "DELETE /v1/customers/{customer}",
        _delete_with_drafts,
    ),
]


@pytest.mark.parametrize(("guess", "what", "module", "name", "value"), BENT)
async def test_bent_rule_is_found_out(
    guess: str,
    what: str,
    *,
    module: Any,
    name: str,
    value: Any,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The report names the guess, what was expected, what was seen, and the requests."""
    monkeypatch.setattr(module, name, value)
    await _expect_difference(sandbox, guess, what)


@pytest.mark.parametrize(("guess", "what", "endpoint", "handler"), BENT_OPERATIONS)
async def test_bent_operation_is_found_out(
    guess: str, what: str, endpoint: str, handler: Callable[..., Any], sandbox: Sandbox
) -> None:
    """As a bent rule."""
    _bend_operation(sandbox, endpoint, handler)
    await _expect_difference(sandbox, guess, what)


async def _expect_difference(sandbox: Sandbox, guess: str, what: str) -> None:
    async with account_of(sandbox) as account:
        report = await run(account, [guess])
    [result] = report.results
    assert (result.verdict, report.is_clean) == ("differs", False), report.as_text()
    assert what in [seen.what for seen in result.observations if not seen.agrees]
    assert f"{what}: expected" in report.as_text()
    assert "req_" in report.as_text()


async def test_case_that_cannot_be_finished_is_no_agreement(sandbox: Sandbox) -> None:
    """An answer that nobody foresaw is reported, and the rest goes on."""
    _bend_operation(sandbox, "GET /v1/events", resources.retrieve)
    async with account_of(sandbox) as account:
        report = await run(account, ["line-events", "empty-draft"])

    assert [result.verdict for result in report.results] == ["failed", "agrees"]
    assert not report.is_clean


def test_live_key_is_refused() -> None:
    """Nothing is made in an account where it would cost money."""
    for key in ("sk_live_1", "", "whsec_1"):
        with pytest.raises(WrongAccount, match="test mode"):
            TestAccount(httpx.AsyncClient(), key)
    command = [sys.executable, "-m", "sandbox.conformance", "--base", "http://127.0.0.1:9"]
    environment = {"STRIPE_TEST_KEY": "sk_live_1", "PATH": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "live keys are refused" in done.stderr


def test_nested_parameters_are_encoded_as_stripe_reads_them() -> None:
    """Brackets for hashes and numbers for lists; true and false in lower case."""
    params = {"lines": [{"amount": 5, "metadata": {"a": "b"}}], "auto_advance": True}
    assert flatten(params) == {
        "lines[0][amount]": "5",
        "lines[0][metadata][a]": "b",
        "auto_advance": "true",
    }
