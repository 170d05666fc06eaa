"""Foreign ids: a customer cannot tell whether an object of another customer exists."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
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
from schema.connections import encode_cursor
from tests.resolvers.conftest import ApiHarness
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


def nodes(number: int) -> str:
    """A query of *number* invented invoices."""
    invented = ", ".join(f'"in_{number:024}"' for number in range(number))
    return f"{{ nodes(ids: [{invented}]) {{ id }} }}"


@dataclass
class TwoCustomers:
    """Two customers: *theirs* owns one object of each kind, *mine* looks them up."""

    http: httpx.AsyncClient
    settings: Settings
    sandbox: StripeSandbox
    theirs: str
    mine: str
    ids: dict[str, str]
    people: Iterator[int] = field(default_factory=count)

    async def execute(
        self, customer: str, document: str, *, person: str | None = None, **variables: str
    ) -> dict[str, Any]:
        """Execute *document* as *customer*, for a new person unless one is named; return the answer without `throttleStatus`."""
        answer = await self.http.post(
            "/graphql",
            json={"query": document, "variables": variables},
            headers=self.bearer(customer, person or str(next(self.people))),
        )
        body: dict[str, Any] = answer.json()
        body.get("extensions", {}).get("cost", {}).pop("throttleStatus", None)
        return body

    def bearer(self, customer: str, person: str) -> dict[str, str]:
        """The header of a new token."""
        assert self.settings.jwt_secret
        claims = {"sub": person, "role": "customer", "customers": [customer], "aud": "fly-billing"}
        secret = self.settings.jwt_secret.get_secret_value()
        token = jwt.encode(
            {**claims, "exp": int(time.time()) + 60, "jti": str(next(self.people))}, secret, "HS256"
        )
        return {"Authorization": f"Bearer {token}"}

    async def allowance(self, customer: str, person: str) -> int:
        """The allowance that *person* has left."""
        answer = await self.http.post(
            "/graphql",
            json={"query": "{ viewer { role } }"},
            headers=self.bearer(customer, person),
        )
        body = answer.json()
        if "errors" in body:
            return -int(body["errors"][0]["extensions"]["retryAfter"])
        available: int = body["extensions"]["cost"]["throttleStatus"]["currentlyAvailable"]
        return available

    async def observations(self, document: str, any_id: str, **variables: str) -> list[Any]:
        """All that the caller can observe in two attempts: the answers, and whether Stripe was called."""
        observed: list[Any] = []
        for _ in range(2):
            await self.sandbox.reset_counters()
            body = await self.execute(self.mine, document, **variables)
            calls = (await self.sandbox.counters())["total"]
            observed.append((json.dumps(body).replace(any_id, "ID"), calls > 0))
        return observed


@pytest.fixture
async def scene(
    settings: Settings, services: Services, sandbox: StripeSandbox
) -> AsyncIterator[TwoCustomers]:
    """A running gateway, and a customer with an invoice, a card and a sync."""
    shop = Shop(services)
    await shop.open()
    theirs, mine = await shop.customer("theirs"), await shop.customer("mine")
    api = ApiHarness(services, shop, build_schema())
    invoice, card = await api.create_invoice(theirs, 500), await api.attach_card(theirs)
    async with (
        serve(create_app(settings)) as address,
        httpx.AsyncClient(base_url=f"http://{address}", timeout=60) as http,
    ):
        found = TwoCustomers(http, settings, sandbox, theirs, mine, {})
        owned = await found.execute(theirs, EVERYTHING, id=theirs)
        sync = await found.execute(theirs, LOOKUPS["syncBilling"], id=theirs)
        [shown] = owned["data"]["customer"]["invoices"]["nodes"]
        found.ids = {
            "cus": theirs,
            "in": invoice,
            "il": shown["lines"]["nodes"][0]["id"],
            "pm": card,
            "sync": sync["data"]["syncBilling"]["sync"]["id"],
        }
        yield found


async def test_foreign_and_absent_ids_are_indistinguishable(scene: TwoCustomers) -> None:
    """Data, errors, costs and calls to Stripe are the same, even for a cached object."""
    for any_id in scene.ids.values():
        found = await scene.execute(scene.theirs, LOOKUPS["node"], id=any_id)
        assert found["data"] == {"node": {"id": any_id}}
    lookups = [("node", kind) for kind in scene.ids] + [(name, "in") for name in LOOKUPS]
    for name, kind in lookups:
        foreign, absent = scene.ids[kind], f"{kind}_{'0' * 24}"
        # What belongs to the viewer is in the cache from here on, whatever is looked up.
        await scene.observations(LOOKUPS[name], another := f"{kind}_{'9' * 24}", id=another)

        observed = [
            await scene.observations(LOOKUPS[name], any_id, id=any_id)
            for any_id in (foreign, absent)
        ]

        assert observed[0] == observed[1], (name, kind)


async def test_foreign_and_absent_ids_fail_alike_while_stripe_is_down(scene: TwoCustomers) -> None:
    """A cached foreign object fails as an absent one does."""
    await scene.sandbox.fault("error_500_before", "*", times=100_000)
    document, foreign = LOOKUPS["invoice"], scene.ids["in"]
    absent = "in_" + "0" * 24

    answers = [
        [
            error["extensions"]["code"]
            for error in (await scene.execute(scene.mine, document, id=any_id))["errors"]
        ]
        for any_id in (foreign, absent)
    ]

    assert answers == [["STRIPE_UNAVAILABLE"], ["STRIPE_UNAVAILABLE"]]


async def test_foreign_and_absent_cursors_are_indistinguishable(scene: TwoCustomers) -> None:
    """Stripe itself pages from any invoice or card of the account."""
    await scene.execute(scene.mine, EVERYTHING, id=scene.mine)
    for kind, page in PAGES.items():
        observed = [
            await scene.observations(
                page, encode_cursor(any_id), mine=scene.mine, cursor=encode_cursor(any_id)
            )
            for any_id in (scene.ids[kind], f"{kind}_{'0' * 24}")
        ]

        assert observed[0] == observed[1]
        assert "INVALID_INPUT" in observed[0][0][0]


async def test_invented_ids_cost_more_than_found_ones(scene: TwoCustomers) -> None:
    """Each missed lookup calls Stripe, so it costs more than a hit and uses up the caller's own allowance."""
    observed = await scene.execute(scene.mine, nodes(90), person="mine")
    refused = await scene.execute(scene.mine, "{ viewer { role } }", person="mine")
    other = await scene.execute(scene.theirs, LOOKUPS["invoice"], id=scene.ids["in"])

    assert observed["extensions"]["cost"]["actualQueryCost"] == 45_000 + 1
    assert refused["errors"][0]["extensions"]["code"] == "RATE_LIMITED"
    assert other["data"] == {"invoice": {"id": scene.ids["in"]}}


async def test_leaving_before_the_answer_saves_nothing(scene: TwoCustomers) -> None:
    """A client that hangs up while Stripe is asked for invented ids has used up its allowance all the same."""
    await scene.sandbox.fault("slow", times=100_000, seconds=2.0)
    await scene.sandbox.reset_counters()
    for _ in range(20):
        with suppress(httpx.TimeoutException):
            await scene.http.post(
                "/graphql",
                json={"query": nodes(100)},
                headers=scene.bearer(scene.mine, "mine"),
                timeout=0.3,
            )
        if await scene.allowance(scene.mine, "mine") < 0:
            break

    assert await scene.allowance(scene.mine, "mine") < -20
    assert (await scene.sandbox.counters())["total"] <= 100


async def test_concurrent_requests_for_invented_ids_are_few(scene: TwoCustomers) -> None:
    """Each reserves what it may cost, so that not all of them begin before the first has missed."""
    await scene.execute(scene.mine, nodes(100), person="other")  # so that the document is known
    await scene.sandbox.reset_counters()
    answers = await asyncio.gather(
        *(scene.execute(scene.mine, nodes(100), person="mine") for _ in range(30))
    )

    assert (
        sum("data" in answer for answer in answers) <= 10
    )  # 4 on a machine that does nothing else
    assert (await scene.sandbox.counters())["total"] <= 10 * 100


async def test_own_ids_reserve_nothing_for_long(scene: TwoCustomers) -> None:
    """What is found is returned, and a customer that the token names is no guess."""
    own = f'{{ customer(id: "{scene.theirs}") {{ id }} }}'
    ids = ", ".join([f'"{scene.ids["in"]}"'] * 9)
    found = f"{{ nodes(ids: [{ids}]) {{ id }} }}"
    for _ in range(2):
        for document in (own, found):
            assert "errors" not in await scene.execute(scene.theirs, document, person="p")

    assert await scene.allowance(scene.theirs, "p") > 20_000 - 300


async def test_invented_cursors_cost_more_than_valid_ones(scene: TwoCustomers) -> None:
    """A page after an unknown cursor always calls Stripe."""
    pages = " ".join(
        f'p{number}: lines(after: "{encode_cursor(f"il_{number:024}")}") {{ nodes {{ id }} }}'
        for number in range(3)
    )

    observed = await scene.execute(
        scene.theirs, f"query ($id: ID!) {{ invoice(id: $id) {{ {pages} }} }}", id=scene.ids["in"]
    )

    assert observed["errors"][0]["extensions"]["code"] == "INVALID_INPUT"
    assert observed["extensions"]["cost"]["actualQueryCost"] >= 1_500
