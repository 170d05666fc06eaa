"""What is not theirs: a customer can tell neither that it is there nor that it is not."""

import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx
import jwt
import pytest

from billing.services import Services
from billing.settings import Settings
from gateway.app import create_app
from schema.build import build_schema
from schema.connections import cursor_of
from tests.resolvers.conftest import Desk
from tests.support.gateway_server import serve
from tests.support.stripe_catalog import Shop
from tests.support.stripe_sandbox import StripeSandbox

LOOKUPS = {
    "node": "query ($id: ID!) { node(id: $id) { id } }",
    "nodes": "query ($id: ID!) { nodes(ids: [$id, $id]) { id } }",
    "customer": "query ($id: ID!) { customer(id: $id) { id } }",
    "invoice": "query ($id: ID!) { invoice(id: $id) { id } }",
    "sync": "query ($id: ID!) { sync(id: $id) { id } }",
    "syncBilling": "mutation ($id: ID!) { syncBilling(input: {customerId: $id})"
    " { sync { id } errors { code message path } } }",
    "createPortalSession": "mutation ($id: ID!) { createPortalSession(input: {customerId: $id,"
    ' returnUrl: "https://fly.io/"}) { url errors { code message path } } }',
}
PAGES = {
    kind: f"query ($mine: ID!, $cursor: String!) {{ customer(id: $mine) {{"
    f" {field}(first: 5, after: $cursor) {{ nodes {{ id }} }} }} }}"
    for kind, field in (("in", "invoices"), ("pm", "paymentMethods"))
}
EVERYTHING = """query ($id: ID!) { customer(id: $id) {
  paymentMethods { nodes { id } } invoices { nodes { id lines { nodes { id } } } } } }"""


@dataclass
class Scene:
    """Two customers; *theirs* has one of everything that has an id, and *mine* asks for it."""

    http: httpx.AsyncClient
    settings: Settings
    sandbox: StripeSandbox
    theirs: str
    mine: str
    ids: dict[str, str]
    tokens: Iterator[int] = field(default_factory=count)

    async def ask(
        self, customer: str, document: str, *, token: str | None = None, **variables: str
    ) -> dict[str, Any]:
        """The answer to *customer*, but for what of its allowance is left; by a new *token* unless named."""
        assert self.settings.jwt_secret
        token_id = token or str(next(self.tokens))
        claims = {"sub": "panel", "role": "customer", "customers": [customer], "jti": token_id}
        secret = self.settings.jwt_secret.get_secret_value()
        bearer = jwt.encode(
            {**claims, "aud": "fly-billing", "exp": int(time.time()) + 60}, secret, "HS256"
        )
        answer = await self.http.post(
            "/graphql",
            json={"query": document, "variables": variables},
            headers={"Authorization": f"Bearer {bearer}"},
        )
        body: dict[str, Any] = answer.json()
        body.get("extensions", {}).get("cost", {}).pop("throttleStatus", None)
        return body

    async def told(self, document: str, any_id: str, **variables: str) -> list[Any]:
        """All that can be told from asking twice: the answers, and whether they took a look at Stripe."""
        told: list[Any] = []
        for _ in range(2):
            await self.sandbox.reset_counters()
            body = await self.ask(self.mine, document, **variables)
            calls = (await self.sandbox.counters())["total"]
            told.append((json.dumps(body).replace(any_id, "ID"), calls > 0))
        return told


@pytest.fixture
async def scene(
    settings: Settings, services: Services, sandbox: StripeSandbox
) -> AsyncIterator[Scene]:
    """The whole gateway, and somebody with an invoice, a card and a sync."""
    shop = Shop(services)
    await shop.open()
    theirs, mine = await shop.customer("theirs"), await shop.customer("mine")
    desk = Desk(services, shop, build_schema())
    invoice, card = await desk.invoice(theirs, 500), await desk.card(theirs)
    async with (
        serve(create_app(settings)) as address,
        httpx.AsyncClient(base_url=f"http://{address}") as http,
    ):
        found = Scene(http, settings, sandbox, theirs, mine, {})
        seen = await found.ask(theirs, EVERYTHING, id=theirs)
        sync = await found.ask(theirs, LOOKUPS["syncBilling"], id=theirs)
        [shown] = seen["data"]["customer"]["invoices"]["nodes"]
        found.ids = {
            "cus": theirs,
            "in": invoice,
            "il": shown["lines"]["nodes"][0]["id"],
            "pm": card,
            "sync": sync["data"]["syncBilling"]["sync"]["id"],
        }
        yield found


async def test_foreign_and_absent_cannot_be_told_apart(scene: Scene) -> None:
    """Not by data, errors or figures, nor by whether Stripe had to be asked, though it is in the cache."""
    for each in scene.ids.values():
        found = await scene.ask(scene.theirs, LOOKUPS["node"], id=each)
        assert found["data"] == {"node": {"id": each}}
    asked = [("node", kind) for kind in scene.ids] + [(name, "in") for name in LOOKUPS]
    for name, kind in asked:
        foreign, absent = scene.ids[kind], f"{kind}_{'0' * 24}"

        told = [await scene.told(LOOKUPS[name], each, id=each) for each in (foreign, absent)]

        assert told[0] == told[1], (name, kind)


async def test_nor_while_stripe_is_down(scene: Scene) -> None:
    """What the cache could still show of somebody else's fails like what nobody can look up."""
    await scene.sandbox.fault("error_500_before", "*", times=100_000)
    document, foreign = LOOKUPS["invoice"], scene.ids["in"]
    absent = "in_" + "0" * 24

    answers = [
        [
            error["extensions"]["code"]
            for error in (await scene.ask(scene.mine, document, id=each))["errors"]
        ]
        for each in (foreign, absent)
    ]

    assert answers == [["STRIPE_UNAVAILABLE"], ["STRIPE_UNAVAILABLE"]]


async def test_a_cursor_tells_no_more(scene: Scene) -> None:
    """Stripe itself goes on from any invoice or card of the account."""
    await scene.ask(scene.mine, EVERYTHING, id=scene.mine)
    for kind, page in PAGES.items():
        told = [
            await scene.told(page, cursor_of(each), mine=scene.mine, cursor=cursor_of(each))
            for each in (scene.ids[kind], f"{kind}_{'0' * 24}")
        ]

        assert told[0] == told[1]
        assert "INVALID_INPUT" in told[0][0][0]


async def test_nobody_uses_stripe_up_by_inventing_ids(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes a look at Stripe, so looking in vain costs far more than finding, however many others ask."""
    monkeypatch.setattr("gateway.graphql.admission.admission.MAX_REFUNDS", 1)
    invented = ", ".join(f'"in_{number:024}"' for number in range(90))

    told = await scene.ask(scene.mine, f"{{ nodes(ids: [{invented}]) {{ id }} }}", token="mine")
    refused = await scene.ask(scene.mine, "{ viewer { role } }", token="mine")
    other = await scene.ask(scene.theirs, LOOKUPS["invoice"], id=scene.ids["in"])

    assert told["extensions"]["cost"]["actualQueryCost"] == 45_000 + 1
    assert refused["errors"][0]["extensions"]["code"] == "RATE_LIMITED"
    assert other["data"] == {"invoice": {"id": scene.ids["in"]}}


async def test_nor_by_inventing_cursors(scene: Scene) -> None:
    """Stripe has to be asked for a page that begins nowhere, each time."""
    pages = " ".join(
        f'p{number}: lines(after: "{cursor_of(f"il_{number:024}")}") {{ nodes {{ id }} }}'
        for number in range(3)
    )

    told = await scene.ask(
        scene.theirs, f"query ($id: ID!) {{ invoice(id: $id) {{ {pages} }} }}", id=scene.ids["in"]
    )

    assert told["errors"][0]["extensions"]["code"] == "INVALID_INPUT"
    assert told["extensions"]["cost"]["actualQueryCost"] >= 1_500
