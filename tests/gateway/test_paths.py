"""Paths: with and without a slash at the end, and behind a proxy that strips a prefix."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

from billing.services import Services
from billing.settings import Settings
from gateway.app import create_app
from gateway.http.paths import API_PATHS
from tests.gateway.test_app import create_customer, token
from tests.support.gateway_server import serve
from tests.support.websocket_client import connect

__all__ = ["token"]
ROOT = "/billing"
Tokens = Callable[..., dict[str, str]]


@asynccontextmanager
async def gateway(settings: Settings, root: str = "") -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application under uvicorn's *root*, sending what a proxy that strips it sends."""
    async with (
        serve(create_app(settings), root_path=root) as address,
        httpx.AsyncClient(base_url=f"http://{address}") as client,
    ):
        yield client


@pytest.mark.parametrize("root", ["", ROOT])
async def test_both_forms_of_a_path_are_answered_alike(
    settings: Settings, services: Services, root: str
) -> None:
    """Never by a redirect, which loses a webhook and repeats the client's Host."""
    del services
    async with gateway(settings, root) as client:
        for path in API_PATHS:
            method = "GET" if path in ("/healthz", "/readyz", "/metrics") else "POST"
            answers = [await client.request(method, form) for form in (path, f"{path}/")]
            assert answers[0].status_code == answers[1].status_code not in (307, 308, 404)
            assert [answer.headers.get("location") for answer in answers] == [None, None]


async def test_unknown_path_is_not_redirected(settings: Settings, services: Services) -> None:
    """The pages' other form is, to an address without a host."""
    del services
    async with gateway(settings) as client:
        unknown, page = await client.get("/nothing/"), await client.get("/graphiql/")

    assert (unknown.status_code, page.status_code) == (404, 308)
    assert page.headers["location"] == "../graphiql"


async def test_everything_works_under_a_prefix(
    settings: Settings, services: Services, token: Tokens
) -> None:
    """GraphQL, its kept answers, sockets and the labels of metrics."""
    customer = await create_customer(services)
    headers = token("customer", customer)
    body = {"query": f'{{ customer(id: "{customer}") {{ currentPeriod {{ start }} }} }}'}
    async with gateway(settings, ROOT) as client:
        answers = [await client.post("/graphql", json=body, headers=headers) for _ in range(3)]
        assert len({answer.text for answer in answers[1:]}) == 1  # kept: even its cost is the same
        async with connect(f"{client.base_url.host}:{client.base_url.port}") as socket:
            await socket.send({"type": "connection_init", "payload": headers})
            assert await socket.receive() == {"type": "connection_ack"}
        metrics = (await client.get("/metrics")).text

    assert 'route="/graphql",status="200"' in metrics


@pytest.mark.parametrize("page", ["/", "/graphiql"])
async def test_pages_load_their_files_under_a_prefix(
    settings: Settings, services: Services, page: str
) -> None:
    """Every address in a page and its scripts is relative to the page's own."""
    del services
    async with gateway(settings, ROOT) as client:
        html = (await client.get(page)).text
        if "run `make up`" in html:
            pytest.skip("GraphiQL is not installed")
        shown = f"https://fly.example{ROOT}{page}"
        files = [
            urljoin(shown, name) for name in re.findall(r'(?:src|href)="(?!data:)([^"]+)"', html)
        ]
        assert files
        texts: list[Any] = []
        for file in files:
            assert file.startswith(f"https://fly.example{ROOT}/")
            answer = await client.get(file.removeprefix(f"https://fly.example{ROOT}"))
            assert answer.status_code == 200
            texts += [answer.text] if file.endswith(("panel.js", "console.js")) else []

    assert [re.findall(r'fetch\(["`]/', text) for text in texts] == [[]]
