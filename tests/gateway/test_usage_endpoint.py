"""``POST /usage``: how a batch may be written, and what its status says about it."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from billing.services import Services
from gateway.auth.tokens import TokenVerifier
from gateway.usage_endpoint import usage_route
from resolvers.context import Role, Viewer
from tests.support.stripe_catalog import Shop, delta
from tests.support.stripe_sandbox import StripeSandbox


class MeteringService(TokenVerifier):
    """Every caller is a metering service."""

    async def verify(self, authorization: object) -> Viewer:
        """Accept any token."""
        return Viewer("meter", Role.METERING)


@pytest.fixture
async def client(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the endpoint."""
    app = Starlette(routes=[usage_route(MeteringService("", None))])
    app.state.services = services
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://gateway"
    ) as client:
        yield client


@pytest.fixture
async def shop(services: Services) -> Shop:
    """Three prices at Stripe."""
    opened = Shop(services)
    await opened.open()
    return opened


def usage_line(customer: str, **changed: Any) -> bytes:
    """One line of usage, in UTF-8."""
    raw = delta(customer)
    fields = {
        "id": raw.id,
        "customerId": customer,
        "sku": raw.sku,
        "quantity": "1",
        "occurredAt": raw.occurred_at,
    }
    return json.dumps({**fields, **changed}, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "written",
    [
        lambda lines: b"\xef\xbb\xbf" + b"\n".join(lines),
        lambda lines: b"\r\n".join(lines) + b"\r\n",
        lambda lines: b"\n\n \t\n".join(lines) + b"\n\n",
        b"\n".join,
    ],
    ids=["byte order mark", "CR LF", "blank lines", "no final newline"],
)
async def test_lines_may_be_written_in_any_common_way(
    client: httpx.AsyncClient, shop: Shop, written: Callable[[list[bytes]], bytes]
) -> None:
    """Editors, spreadsheets and shells write files differently; none of that is a mistake."""
    customer = await shop.customer()

    response = await client.post("/usage", content=written([usage_line(customer) for _ in "ab"]))

    assert (response.status_code, response.json()["accepted"]) == (200, 2)


@pytest.mark.parametrize(
    "name",
    ["東京　リージョン", "\u0646\u0645\u06cc\u200c\u062e\u0648", "👩\u200d🚀", "क्\u200dष", "Straße", "𐐷", "\U0001fae8", "x" * 255],
)  # fmt: skip
async def test_names_may_be_in_any_script(client: httpx.AsyncClient, shop: Shop, name: str) -> None:
    """Joiners, wide spaces and characters younger than this Python belong to names."""
    line = usage_line(await shop.customer(), id=name, app=name, organization=name)

    report = (await client.post("/usage", content=line)).json()

    assert (report["accepted"], report["rejected"]) == (1, [])


@pytest.mark.parametrize("name", ["a\x00b", "a\nb", "a\u202eb", "a\u2028b", "x" * 256, "\x85"])
async def test_unreadable_names_are_refused(
    client: httpx.AsyncClient, shop: Shop, name: str
) -> None:
    """Control characters and overrides of the text direction make a bill or a log unreadable."""
    line = usage_line(await shop.customer(), app=name)

    [rejected] = (await client.post("/usage", content=line)).json()["rejected"]

    assert rejected["error"]["path"] == ["app"]


async def test_batch_of_which_nothing_was_counted_is_an_error(
    client: httpx.AsyncClient, shop: Shop
) -> None:
    """A producer that looks at the status alone would lose everything silently."""
    customer = await shop.customer()
    bad = [usage_line(customer, sku="nope"), b"no json", usage_line(customer, quantity="1e-7")]

    refused = await client.post("/usage", content=b"\n".join(bad))
    partly = await client.post("/usage", content=b"\n".join([*bad, line := usage_line(customer)]))
    again = await client.post("/usage", content=b"\n".join([*bad, line]))
    empty = await client.post("/usage", content=b"\n")

    assert [r.status_code for r in (refused, partly, again, empty)] == [422, 200, 200, 200]
    assert len(refused.json()["rejected"]) == 3
    [error] = refused.json()["errors"]
    assert error["message"].startswith("Nothing is counted: all 3 deltas are in `rejected`")
    assert [r.json()["errors"] for r in (partly, again, empty)] == [[], [], []]
    assert "exponent" in refused.json()["rejected"][2]["error"]["message"]
    assert (partly.json()["accepted"], again.json()["duplicates"]) == (1, 1)


async def test_line_without_a_field_says_which(client: httpx.AsyncClient) -> None:
    """Nobody knows what a library calls the object that the line is."""
    lines = [b"{}", b'{"id": "a"}', b"[]"]

    rejected = (await client.post("/usage", content=b"\n".join(lines))).json()["rejected"]

    assert [r["error"]["message"] for r in rejected] == [
        "Line 1 has no `id`.",
        "Line 2 has no `customerId`.",
        "Line 3 is not a usage delta: Expected `object`, got `array`.",
    ]


async def test_batch_that_may_be_counted_later_is_unavailable(
    client: httpx.AsyncClient, shop: Shop, sandbox: StripeSandbox
) -> None:
    """A producer that drops what a 4xx refuses must not drop what Stripe could not confirm."""
    customer = await shop.customer()
    await sandbox.fault("error_500_before", "GET /v1/customers/{customer}", times=9)

    body = b"\n".join([usage_line(customer), usage_line(customer, quantity="x")])
    response = await client.post("/usage", content=body)

    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert len(response.json()["rejected"]) == 2
