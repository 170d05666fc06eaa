"""Runs ``python -m billing.ledger`` as an operator does."""

import asyncio
import os
import sys

SECRET = "a-secret-for-the-tests-only-0123456789"


async def run_command(url: str, *arguments: str, typed: str = "") -> tuple[int, str]:
    """Run ``python -m billing.ledger`` on the ledger at *url*; return its exit status and output."""
    settings = {
        "REDIS_URL": url,
        "STRIPE_API_KEY": "sk_test_0123456789abcdef",
        "STRIPE_WEBHOOK_SECRETS": "whsec_0123456789abcdef",
        "JWT_SECRET": SECRET,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "billing.ledger", *arguments),
        env=os.environ | {f"BILLING_{name}": value for name, value in settings.items()},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate(typed.encode())
    return process.returncode or 0, output.decode()
