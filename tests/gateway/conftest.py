"""A real server around the view, a client that speaks to it, and what they share."""

from collections.abc import AsyncIterator

import httpx
import pytest
from redis.asyncio import Redis

from gateway.graphql.admission.rate_limiter import EdgeStore
from tests.support.gateway_server import Edge, serve


@pytest.fixture
def edge(redis: Redis) -> Edge:
    """The view over the small schema; change it before asking for `client` or `address`."""
    return Edge(EdgeStore(redis))


@pytest.fixture
async def address(edge: Edge) -> AsyncIterator[str]:
    """Where *edge* is served, as ``host:port``."""
    async with serve(edge.app) as at:
        yield at


@pytest.fixture
async def client(address: str) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody with a token."""
    async with httpx.AsyncClient(
        base_url=f"http://{address}", headers={"Authorization": "Bearer ann"}
    ) as somebody:
        yield somebody
