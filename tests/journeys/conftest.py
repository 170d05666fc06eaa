"""A whole gateway for each journey: processes, Stripe sandbox, and callers with tokens."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from billing.services import Services
from billing.settings import Settings
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.system import System

WEBHOOK_SECRET = "whsec_test_0123456789abcdef"


@pytest.fixture
async def system(
    settings: Settings,
    services: Services,
    sandbox: StripeSandbox,
    tmp_path: Path,
) -> AsyncIterator[System]:
    """The gateway and one worker, with Stripe's webhooks coming in."""
    started = System(settings, tmp_path)
    await sandbox.register_endpoint(f"{started.url}/webhooks/stripe", WEBHOOK_SECRET)
    try:
        await started.start_gateway()
        started.start_worker()
        yield started
    finally:
        started.stop()
