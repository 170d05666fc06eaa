"""Every finding of the doctor, provoked in the sandbox; and what it never does."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from stripe import StripeClient

from billing.doctor.account import MAX_READS, AccountUnreachable, CannotRead, StripeAccount
from billing.doctor.checks import api
from billing.doctor.findings import Finding, Severity
from billing.doctor.report import Report, examine
from billing.stripe import API_VERSION
from tests.billing.doctor.conftest import RESTRICTED, URL
from tests.support.stripe_sandbox import StripeSandbox

REVOKED = "rk_test_revoked0123456789"
Provoke = Callable[[StripeSandbox, StripeClient, str], Awaitable[Any]]


async def run(
    sandbox: StripeSandbox, key: str = RESTRICTED, webhook_url: str | None = None
) -> Report:
    """The doctor's report on the sandbox's account."""
    async with StripeAccount(key, sandbox.url, webhook_url) as account:
        return await examine(account)


def findings(report: Report, name: str) -> list[Finding]:
    """The findings of the check called *name*."""
    [found] = [result.findings for result in report.results if result.name == name]
    return list(found)


async def test_sound_account_has_no_finding_but_notices(
    sandbox: StripeSandbox, customer: str
) -> None:
    """A restricted key that only reads is enough for every check; at least 25 are made."""
    report = await run(sandbox)

    assert [
        (result.name, finding)
        for result in report.results
        for finding in result.findings
        if finding.severity not in (Severity.OK, Severity.NOTICE)
    ] == []
    assert report.exit_code == 0
    assert len(report.results) >= 25


async def test_doctor_only_reads(sandbox: StripeSandbox, customer: str) -> None:
    """Even a key that may do everything is used for GET alone, and fewer than a hundred times."""
    await sandbox.reset_counters()
    report = await run(sandbox, "sk_test_0123456789abcdef")

    counters = await sandbox.counters()
    assert counters["writes"] == 0
    assert counters["reads"] == report.reads < 100


async def test_report_shows_no_secret_and_no_address(sandbox: StripeSandbox, customer: str) -> None:
    """Reports are pasted into tickets."""
    report = await run(sandbox, "sk_test_0123456789abcdef")

    for text in (report.as_text(), report.as_json()):
        assert "0123456789abcdef" not in text
        assert "secret.person" not in text


def _put(kind: str, **fields: Any) -> Provoke:
    async def provoke(sandbox: StripeSandbox, _client: StripeClient, _customer: str) -> None:
        await sandbox.put_object(kind, **fields)

    return provoke


def _of_customer(**fields: Any) -> Provoke:
    async def provoke(sandbox: StripeSandbox, _client: StripeClient, customer: str) -> None:
        await sandbox.put_object("customers", id=customer, **fields)

    return provoke


def _endpoint(**params: Any) -> Provoke:
    async def provoke(_sandbox: StripeSandbox, client: StripeClient, _customer: str) -> None:
        [endpoint] = (await client.v1.webhook_endpoints.list_async()).data
        await client.v1.webhook_endpoints.update_async(endpoint.id, params)  # type: ignore[arg-type]

    return provoke


def _draft(times: int = 1, **fields: Any) -> Provoke:
    async def provoke(sandbox: StripeSandbox, client: StripeClient, customer: str) -> None:
        for _ in range(times):
            metadata = fields.get("metadata", {})
            draft = await client.v1.invoices.create_async(
                {"customer": customer, "metadata": metadata}
            )
            await sandbox.put_object("invoices", id=draft.id, **fields)

    return provoke


async def _no_endpoint(_sandbox: StripeSandbox, client: StripeClient, _customer: str) -> None:
    [endpoint] = (await client.v1.webhook_endpoints.list_async()).data
    await client.v1.webhook_endpoints.delete_async(endpoint.id)


async def _old_endpoint(sandbox: StripeSandbox, client: StripeClient, _customer: str) -> None:
    [endpoint] = (await client.v1.webhook_endpoints.list_async()).data
    await sandbox.put_object("webhook_endpoints", id=endpoint.id, api_version="2022-11-15")


async def _second_endpoint(_sandbox: StripeSandbox, client: StripeClient, _customer: str) -> None:
    await client.v1.webhook_endpoints.create_async(
        {"url": f"{URL}/", "enabled_events": ["invoice.paid"]}
    )


async def _silent_endpoint(sandbox: StripeSandbox, client: StripeClient, customer: str) -> None:
    await sandbox.register_endpoint("http://127.0.0.1:9/webhooks/stripe", "whsec_x")
    await client.v1.customers.update_async(customer, {"name": "Changed"})


async def _recurring_price(_sandbox: StripeSandbox, client: StripeClient, _customer: str) -> None:
    product = await client.v1.products.create_async({"name": "Plan"})
    await client.v1.prices.create_async(
        {
            "product": product.id,
            "currency": "usd",
            "unit_amount": 500,
            "lookup_key": "plan",
            "recurring": {"interval": "month"},
        }
    )


async def _archived_price(_sandbox: StripeSandbox, client: StripeClient, _customer: str) -> None:
    [price] = (await client.v1.prices.list_async()).data
    await client.v1.prices.update_async(price.id, {"active": False})


async def _pending_item(_sandbox: StripeSandbox, client: StripeClient, customer: str) -> None:
    await client.v1.invoice_items.create_async({"customer": customer, "amount": 100})


async def _subscription(sandbox: StripeSandbox, _client: StripeClient, customer: str) -> None:
    await sandbox.put_object("subscriptions", customer=customer, status="active")


async def _terms(_sandbox: StripeSandbox, client: StripeClient, customer: str) -> None:
    await client.v1.invoices.create_async(
        {"customer": customer, "collection_method": "send_invoice", "days_until_due": 30}
    )


async def _taxed_price(sandbox: StripeSandbox, _client: StripeClient, _customer: str) -> None:
    await sandbox.put_object("settings", id="tax_settings", status="active")


async def _no_card(_sandbox: StripeSandbox, client: StripeClient, _customer: str) -> None:
    await client.v1.customers.create_async({"name": "No card"})


async def _no_customer(_sandbox: StripeSandbox, client: StripeClient, customer: str) -> None:
    await client.v1.customers.delete_async(customer)


PROVOKED: list[tuple[str, Severity, Provoke]] = [
    (
        "account.charges",
        Severity.WARNING,
        _put("account", id="acct_sandbox", charges_enabled=False),
    ),
    ("account.portal", Severity.PROBLEM, _put("configurations", id="bpc_1sandbox", active=False)),
    ("tax.registration", Severity.NOTICE, _taxed_price),
    ("tax.drafts", Severity.WARNING, _draft(automatic_tax={"enabled": True, "status": None})),
    ("tax.behavior", Severity.WARNING, _taxed_price),
    ("webhook.endpoint", Severity.PROBLEM, _no_endpoint),
    ("webhook.enabled", Severity.PROBLEM, _endpoint(disabled=True)),
    ("webhook.version", Severity.PROBLEM, _old_endpoint),
    ("webhook.events_missing", Severity.PROBLEM, _endpoint(enabled_events=["invoice.paid"])),
    ("webhook.events_unused", Severity.NOTICE, _endpoint(enabled_events=["charge.succeeded"])),
    ("webhook.duplicates", Severity.WARNING, _second_endpoint),
    ("webhook.https", Severity.NOTICE, _silent_endpoint),
    ("webhook.undelivered", Severity.WARNING, _silent_endpoint),
    ("prices.usable", Severity.PROBLEM, _archived_price),
    ("prices.unusable", Severity.WARNING, _recurring_price),
    ("prices.archived", Severity.NOTICE, _archived_price),
    ("prices.currency", Severity.PROBLEM, _of_customer(currency="eur")),
    ("customers.known", Severity.WARNING, _no_customer),
    ("customers.currency", Severity.NOTICE, _no_card),
    ("customers.location", Severity.WARNING, _taxed_price),
    ("customers.payment_method", Severity.WARNING, _no_card),
    ("customers.delinquent", Severity.NOTICE, _of_customer(delinquent=True)),
    ("customers.discount", Severity.NOTICE, _of_customer(discount={"id": "di_1"})),
    ("customers.test_clock", Severity.NOTICE, _of_customer(test_clock="clock_1")),
    ("drafts.foreign", Severity.WARNING, _draft()),
    ("drafts.double", Severity.PROBLEM, _draft(2, metadata={"gw_period": "2026-11"})),
    ("invoices.pending_items", Severity.WARNING, _pending_item),
    ("invoices.subscriptions", Severity.WARNING, _subscription),
    ("invoices.terms", Severity.WARNING, _terms),
    (
        "invoices.failed",
        Severity.PROBLEM,
        _draft(last_finalization_error={"code": "customer_tax_location_invalid"}),
    ),
]


@pytest.mark.parametrize(
    ("name", "severity", "provoke"), PROVOKED, ids=[row[0] for row in PROVOKED]
)
async def test_finding_is_provoked(
    name: str,
    severity: Severity,
    provoke: Provoke,
    sandbox: StripeSandbox,
    client: StripeClient,
    customer: str,
) -> None:
    """Each thing that is not as it should be is found, and what must be done has a cure."""
    await provoke(sandbox, client, customer)

    [finding] = findings(await run(sandbox), name)
    assert finding.severity is severity
    assert finding.cure or severity is Severity.NOTICE


@pytest.mark.parametrize(
    "resource",
    [
        "customers",
        "invoices",
        "invoiceitems",
        "prices",
        "products",
        "events",
        "credit_notes",
        "payment_intents",
    ],
)
async def test_right_that_the_key_lacks_is_named(
    resource: str, sandbox: StripeSandbox, customer: str
) -> None:
    """A missing right is a problem of its own; checks that need it are left undone, not failed."""
    rights = dict.fromkeys(("customers", "invoices", "invoiceitems", "prices", "products"), "read")
    rights |= {"events": "read", "credit_notes": "read", "payment_intents": "read"}
    del rights[resource]
    await sandbox.restrict_key(RESTRICTED, **rights)

    report = await run(sandbox)
    [finding] = findings(report, f"right.{resource}")
    assert finding.severity is Severity.PROBLEM
    assert finding.cure
    [undone] = findings(report, "account.charges")
    assert undone.severity is Severity.UNKNOWN


async def test_secret_key_is_warned_of(sandbox: StripeSandbox, customer: str) -> None:
    """A secret key may do everything in the account."""
    [finding] = findings(await run(sandbox, "sk_test_0123456789abcdef"), "key.kind")
    assert finding.severity is Severity.WARNING


async def test_endpoint_at_another_address_is_not_ours(
    sandbox: StripeSandbox, customer: str
) -> None:
    """With the address known, only an endpoint there counts."""
    report = await run(sandbox, webhook_url="https://other.example/webhooks/stripe")
    [finding] = findings(report, "webhook.endpoint")
    assert finding.severity is Severity.PROBLEM
    assert "other.example" in finding.message


async def test_refused_reads_are_repeated_and_reported(
    sandbox: StripeSandbox, customer: str
) -> None:
    """Another program that uses up the account's rate is noticed."""
    await sandbox.fault("rate_limited", "GET /v1/events", times=1)

    report = await run(sandbox)
    assert findings(report, "right.events")[0].severity is Severity.OK
    [finding] = findings(report, "api.limits")
    assert finding.severity is Severity.WARNING
    assert "endpoint-rate (1)" in finding.message


async def test_answer_that_is_no_answer_leaves_a_check_undone(
    sandbox: StripeSandbox, customer: str
) -> None:
    """An error of Stripe's is no finding about the account."""
    await sandbox.fault("error_500_before", "GET /v1/account", times=1)

    [finding] = findings(await run(sandbox), "account.charges")
    assert finding.severity is Severity.UNKNOWN


async def test_unknown_key_and_silent_server_end_the_examination(sandbox: StripeSandbox) -> None:
    """Without any answer there is nothing to report."""
    await sandbox.revoke_key(REVOKED)
    with pytest.raises(AccountUnreachable, match="does not know the API key"):
        await run(sandbox, REVOKED)
    async with StripeAccount(RESTRICTED, "http://127.0.0.1:9") as account:
        with pytest.raises(AccountUnreachable, match="does not answer"):
            await examine(account)


async def test_reads_end_at_their_limit(sandbox: StripeSandbox, customer: str) -> None:
    """An examination takes no more of the monthly allowance than it says."""
    async with StripeAccount(RESTRICTED, sandbox.url) as account:
        account.reads = MAX_READS
        with pytest.raises(CannotRead, match="99 reads"):
            await account.get("/v1/customers")


@pytest.mark.parametrize(
    ("seconds", "severity"),
    [(0.4, Severity.OK), (-30.0, Severity.WARNING), (90.0, Severity.PROBLEM)],
)
async def test_clock_difference(seconds: float, severity: Severity) -> None:
    """A minute is what the workers refuse to start with."""
    async with StripeAccount(RESTRICTED, "http://127.0.0.1:9") as account:
        account.clock_differences = [seconds]
        [finding] = await api.check_clock(account)
    assert finding.severity is severity


async def test_other_version_and_slow_answers_are_found() -> None:
    """A proxy that changes the version header, and a long way to Stripe."""
    async with StripeAccount(RESTRICTED, "http://127.0.0.1:9") as account:
        account.versions = {API_VERSION, "2022-11-15"}
        account.seconds = [1.5, 1.5, 0.1]
        [version] = await api.check_version(account)
        [speed] = await api.check_speed(account)
    assert (version.severity, speed.severity) == (Severity.PROBLEM, Severity.WARNING)
    assert "2022-11-15" in version.message
