"""A worker answers Prometheus, because most calls to Stripe are a worker's."""

from pathlib import Path

import httpx

from billing.settings import Settings
from tests.support.system import System, free_port, until


async def test_a_worker_shows_its_figures(settings: Settings, tmp_path: Path) -> None:
    """Who is refused by Stripe's limits is seen where it happens."""
    port = free_port()
    system = System(settings.model_copy(update={"metrics_port": port}), tmp_path)
    system.start_worker()

    async def figures() -> str:
        async with httpx.AsyncClient() as client:
            try:
                answer = await client.get(f"http://127.0.0.1:{port}/metrics")
            except httpx.ConnectError:
                return ""
            return answer.text

    try:
        text = await until(figures, "the worker answers")
    finally:
        system.stop()
    assert "billing_stripe_wait_seconds" in text
