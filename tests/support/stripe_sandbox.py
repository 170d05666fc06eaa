"""The Stripe sandbox as a real process, and its control path as a small client.

with start_sandbox("--no-limits", "--no-latency") as sandbox:
    client = stripe.StripeClient("sk_test_x", base_addresses={"api": sandbox.url})
    await sandbox.fault("answer_lost_after", "POST /v1/invoices/{invoice}/add_lines")
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 90


@dataclass
class StripeSandbox:
    """One running sandbox: ``url`` for stripe-python, methods for everything under ``/_sandbox``."""

    url: str
    process: "subprocess.Popen[bytes] | None" = None

    async def reset(self) -> None:
        """Forget all objects, keys, faults and counters; endpoints given at start stay."""
        await self.control("POST", "reset")

    async def settings(self, **changes: Any) -> dict[str, Any]:
        """Change settings (limits, latency, mode, retry_scale, duplicates, shuffle, …)."""
        return await self.control("POST", "settings", changes)

    async def fault(self, kind: str, match: str = "*", times: int = 1, **params: Any) -> str:
        """Order a fault for the next *times* matching requests or events; returns its id."""
        body = {"kind": kind, "match": match, "times": times, **params}
        return str((await self.control("POST", "faults", body))["id"])

    async def clear_faults(self) -> None:
        """Cancel every fault that still stands."""
        await self.control("DELETE", "faults")

    async def counters(self) -> dict[str, Any]:
        """Return {"total", "reads", "writes", "endpoints": {endpoint: {"calls", "ok", …}}}."""
        return await self.control("GET", "counters")

    async def calls(self, endpoint: str) -> int:
        """Return how often *endpoint* was called, e.g. ``POST /v1/invoices``."""
        counts: dict[str, Any] = (await self.counters())["endpoints"].get(endpoint, {})
        return int(counts.get("calls", 0))

    async def reset_counters(self) -> None:
        """Count from zero."""
        await self.control("POST", "counters/reset")

    async def advance(self, seconds: float) -> float:
        """Move the account's clock forward; returns its time."""
        return float((await self.control("POST", "clock", {"advance": seconds}))["now"])

    async def now(self) -> float:
        """Return the account's time."""
        return float((await self.control("GET", "clock"))["now"])

    async def dashboard(self, action: str, invoice: str, **params: Any) -> dict[str, Any]:
        """Do to *invoice* what a person in the Dashboard does; returns it as it is then.

        finalize, void, delete, pay, mark_uncollectible; update(description=…);
        add_line(amount=…, description=…); edit_line(line=…, quantity_decimal=…); delete_line(line=…).
        """
        return await self.control(
            "POST", "dashboard", {"action": action, "invoice": invoice} | params
        )

    async def drain_webhooks(self, timeout: float = 10) -> dict[str, Any]:  # noqa: ASYNC109
        """Wait until every due delivery was tried; {"settled", "pending", "failed", "delivered"}."""
        return await self.control("POST", "webhooks/drain", {"timeout": timeout})

    async def webhooks(self) -> dict[str, Any]:
        """Return {"pending": […], "failed": […], "delivered": n, "forged_answers": [status, …]}."""
        return await self.control("GET", "webhooks")

    async def register_endpoint(
        self, url: str, secret: str, events: list[str] | None = None
    ) -> str:
        """Register a webhook endpoint with a chosen secret; returns its id."""
        body = {"url": url, "secret": secret, "enabled_events": events or ["*"]}
        return str((await self.control("POST", "webhooks/endpoint", body))["id"])

    async def put_object(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Create an object, or change the one with the id given, as another system would."""
        return await self.control("POST", "objects", {"kind": kind, "fields": fields})

    async def restrict_key(self, key: str, **rights: str) -> None:
        """Give the key ``rk_test_…`` these rights only: first part of a path → ``read`` or ``write``."""
        await self.control("POST", "keys", {"key": key, "rights": rights})

    async def revoke_key(self, key: str) -> None:
        """Make any test key unknown; `restrict_key` makes a restricted one known again."""
        await self.control("POST", "keys/revoke", {"key": key})

    async def control(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Call the control path; httpx.HTTPStatusError tells what was wrong."""
        # Plain HTTP: without verify=False each client would load all certificates first.
        async with httpx.AsyncClient(
            base_url=self.url, timeout=60, trust_env=False, verify=False
        ) as client:
            answer = await client.request(method, f"/_sandbox/{path}", json=body)
        if answer.is_error:
            raise httpx.HTTPStatusError(answer.text, request=answer.request, response=answer)
        result: dict[str, Any] = answer.json()
        return result

    def kill(self) -> None:
        """End the process as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    @classmethod
    def start(cls, *args: str) -> Self:
        """Start a process on a free port (or the one in *args*) and wait until it serves."""
        port = () if "--port" in args else ("--port", "0")
        command = [sys.executable, "-m", "sandbox", *port, *args]
        env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE)
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
        line = process.stdout.readline() if ready else b""
        if not line:
            process.kill()
            process.wait()
            process.stdout.close()
            raise RuntimeError("the sandbox did not start")
        return cls(json.loads(line)["url"], process)

    def stop(self) -> int:
        """End the process as a deployment does; returns its exit status."""
        if self.process is None:
            return 0
        self.process.terminate()
        try:
            status = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@contextmanager
def start_sandbox(*args: str) -> Iterator[StripeSandbox]:
    """Run a sandbox for the length of a ``with`` block; arguments as of ``python -m sandbox``."""
    sandbox = StripeSandbox.start(*args)
    try:
        yield sandbox
    finally:
        sandbox.stop()
