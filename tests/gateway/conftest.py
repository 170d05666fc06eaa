"""A small gateway, a real server around it, and a client."""

from collections.abc import AsyncIterator

import httpx
import pytest
from redis.asyncio import Redis

from gateway.graphql.admission.best_effort_redis import BestEffortRedis
from tests.support.gateway_server import SmallGateway, serve


@pytest.fixture
def small_gateway(redis: Redis) -> SmallGateway:
    """An endpoint over the small schema; change it before requesting `client` or `address`."""
    return SmallGateway(BestEffortRedis(redis))


@pytest.fixture
async def address(small_gateway: SmallGateway) -> AsyncIterator[str]:
    """The address of *small_gateway*, as ``host:port``."""
    async with serve(small_gateway.app) as address:
        yield address


@pytest.fixture
async def client(address: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a token."""
    async with httpx.AsyncClient(
        base_url=f"http://{address}", headers={"Authorization": "Bearer ann"}
    ) as client:
        yield client
