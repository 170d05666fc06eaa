"""Webhook deliveries: signed anew for each attempt, retried with growing delays, unordered."""

import asyncio
import hashlib
import hmac
import random
import time
from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

import httpx
import orjson

from sandbox.account import Account, Record
from sandbox.faults import WEBHOOK_FAULTS, Faults
from sandbox.invoices import mark_delivered
from sandbox.params import Params
from sandbox.sdk import API_VERSION, Json
from sandbox.serializers import serialize, serialize_event

# Seconds. Stripe retries for three days in live mode, three times over some hours in a sandbox.
RETRY_DELAYS: Final = {
    "live": (60, 300, 1800, 3600, 7200, 14400, 28800, 57600, 57600, 57600),
    "sandbox": (1800, 5400),
}
MAX_CONCURRENT: Final = 32
POLL_SECONDS: Final = 0.02
SUCCESS_CLASS: Final = 2


def _create_endpoint(account: Account, params: Params) -> Json:
    """Register an endpoint; its API version is fixed now and its secret is shown only now."""
    secret = params.pop("secret", None) or account.new_id("whsec_")
    record = {"api_version": API_VERSION, "signed_with": secret, "status": "enabled"}
    made = account.create("webhook_endpoints", record | params)
    return serialize(account, "webhook_endpoints", made) | {"secret": secret}


def _update_endpoint(account: Account, params: Params, endpoint: str) -> Record:
    if "disabled" in params:
        params["status"] = "disabled" if params.pop("disabled") else "enabled"
    return account.change("webhook_endpoints", account.get("webhook_endpoints", endpoint), params)


ACTIONS: Final[Mapping[str, Any]] = {
    "POST /v1/webhook_endpoints": _create_endpoint,
    "POST /v1/webhook_endpoints/*": _update_endpoint,
}


class WebhookSender:
    """Sends every due delivery until its endpoint acknowledges it or its attempts are used up."""

    def __init__(self, account: Account, faults: Faults) -> None:
        self.account, self.settings, self.faults = account, account.settings, faults
        self.delivered = 0
        self.forged: deque[int] = deque(maxlen=1000)
        self._rng = random.Random(f"webhooks:{account.seed}")  # noqa: S311
        self._in_flight: set[str] = set()

    async def run(self) -> None:
        """Deliver for ever, at most MAX_CONCURRENT at once."""
        async with httpx.AsyncClient(trust_env=False) as client, asyncio.TaskGroup() as group:
            while True:
                waiting = (row for row in self._due() if row["id"] not in self._in_flight)
                for delivery in list(islice(waiting, MAX_CONCURRENT - len(self._in_flight))):
                    self._in_flight.add(delivery["id"])
                    group.create_task(self._deliver_tracked(client, delivery))
                await asyncio.sleep(POLL_SECONDS)

    def clear(self) -> None:
        """Reset the counts of deliveries."""
        self.delivered = 0
        self.forged.clear()

    async def drain(self, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait until no delivery is due; return False if that took longer than *timeout*."""
        deadline = time.monotonic() + timeout
        while busy := bool(self._due(self.settings.shuffle)):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(POLL_SECONDS)
        return not busy

    def report(self) -> dict[str, Any]:
        """Return the pending and the failed deliveries, and the number of delivered ones."""
        rows = list(self.account.rows["deliveries"].values())
        failed = [row for row in rows if row.get("failed")]
        pending = [row for row in rows if not row.get("failed")]
        counted = {"delivered": self.delivered, "forged_answers": list(self.forged)}
        return {"pending": pending, "failed": failed, **counted}

    def _due(self, soon: float = 0) -> list[Record]:
        by, rows = self.account.time() + soon, self.account.rows["deliveries"].values()
        return [row for row in rows if row["due"] <= by and not row.get("failed")]

    async def _deliver_tracked(self, client: httpx.AsyncClient, delivery: Record) -> None:
        try:
            await self._deliver(client, delivery)
        finally:
            self._in_flight.discard(delivery["id"])

    async def _deliver(self, client: httpx.AsyncClient, delivery: Record) -> None:
        rows = self.account.rows
        endpoint = rows["webhook_endpoints"].get(delivery["endpoint"])
        event = rows["events"].get(delivery["event"])
        if endpoint is None or event is None:
            with self.account.transaction():
                return self.account.drop("deliveries", delivery)
        fault = self.faults.consume(WEBHOOK_FAULTS, event["type"], event["after"]["id"])
        match kind := fault["kind"]:
            case "webhook_drop":
                return self._update_delivery(delivery, failed=True)
            case "webhook_delay":
                return self._update_delivery(delivery, due=self.account.time() + fault["seconds"])
            case "webhook_reorder":  # the first of a group waits longest
                wait = (fault["times"] + 1) * fault["gap"]
                return self._update_delivery(delivery, due=self.account.time() + wait)
        version = fault.get("version") or endpoint["api_version"]
        body = orjson.dumps(serialize_event(self.account, event, version))
        if kind == "webhook_forge":
            fake = body.replace(event["id"].encode(), b"evt_forged" + event["id"][-8:].encode())
            self.forged.append(await self._post(client, endpoint["url"], fake, "whsec_forged"))
        twice = kind == "webhook_duplicate" or self._rng.random() < self.settings.duplicates
        for _ in range(1 + twice):
            status = await self._post(client, endpoint["url"], body, endpoint["signed_with"])
        return self._record_attempt(delivery, event, acknowledged=status // 100 == SUCCESS_CLASS)

    async def _post(self, client: httpx.AsyncClient, url: str, body: bytes, secret: str) -> int:
        at = str(int(time.time()))  # real time: receivers compare with their own clocks
        digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        headers = {"content-type": "application/json; charset=utf-8", "user-agent": "Stripe/1.0"}
        headers["stripe-signature"] = f"t={at},v1={digest}"
        timeout = self.settings.webhook_timeout
        try:
            response = await client.post(url, content=body, headers=headers, timeout=timeout)
        except (httpx.HTTPError, httpx.InvalidURL):
            return 0
        return response.status_code

    def _record_attempt(self, delivery: Record, event: Record, *, acknowledged: bool) -> None:
        attempts, delays = delivery["attempts"] + 1, RETRY_DELAYS[self.settings.mode]
        if acknowledged:
            self.delivered += 1
            with self.account.transaction():
                self.account.drop("deliveries", delivery)
                if event["type"] == "invoice.created" and not self.account.pending_endpoints(
                    event["id"]
                ):
                    mark_delivered(self.account, event["after"]["id"])
        elif attempts > len(delays):
            self._update_delivery(delivery, attempts=attempts, failed=True)
        else:
            wait = delays[attempts - 1] * self.settings.retry_scale
            self._update_delivery(delivery, attempts=attempts, due=self.account.time() + wait)

    def _update_delivery(self, delivery: Record, **new: Any) -> None:
        with self.account.transaction():
            self.account.put("deliveries", {**delivery, **new})
