"""Webhooks: signed afresh each time, tried again with growing gaps, in no promised order."""

import asyncio
import hashlib
import heapq
import hmac
import random
import time
from collections import deque
from contextlib import suppress
from typing import Any, Final

import httpx
import orjson

from sandbox.account import Account, Record, Unit
from sandbox.forms import Params
from sandbox.hostility import ON_WEBHOOK, Faults
from sandbox.invoices import acknowledged
from sandbox.resources import changes
from sandbox.sdk import API_VERSION, Json
from sandbox.shapes import event as event_shape
from sandbox.shapes import shape

# Stripe tries for three days in live mode, three times over some hours in a sandbox.
GAPS: Final = {
    "live": (60, 300, 1800, 3600, 7200, 14400, 28800, 57600, 57600, 57600),
    "sandbox": (1800, 5400),
}
OLD_VERSION: Final = "2022-11-15"
AT_ONCE: Final = 32
OK: Final = 2


def create_endpoint(unit: Unit, params: Params) -> Json:
    """Register an endpoint; its version is fixed here and its secret is shown only here."""
    secret = params.pop("secret", None) or unit.account.new_id("whsec_")
    record = {"api_version": API_VERSION, "signed_with": secret} | changes({}, params)
    made = unit.create("webhook_endpoints", record)
    return shape(unit, "webhook_endpoints", made) | {"secret": secret}


def update_endpoint(unit: Unit, params: Params, endpoint: str) -> Record:
    """Change where an endpoint is, what it hears, or whether it is on."""
    old = unit.get("webhook_endpoints", endpoint)
    if "disabled" in params:
        params["status"] = "disabled" if params.pop("disabled") else "enabled"
    return unit.change("webhook_endpoints", old, **changes(old, params))


class Courier:
    """Carries every queued delivery to its endpoint until it is acknowledged or given up."""

    def __init__(self, account: Account, faults: Faults) -> None:
        self.account, self.settings, self.faults = account, account.settings, faults
        self.delivered = 0
        self.forged: deque[int] = deque(maxlen=1000)
        self._dice = random.Random(f"webhooks:{account.seed}")  # noqa: S311
        self._queue: list[tuple[float, str]] = []
        self._running: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(AT_ONCE)
        self.wake = asyncio.Event()
        account.on_delivery = self.send
        self.reload()

    def reload(self) -> None:
        """Queue what the account says is still to be delivered."""
        self._queue.clear()
        self.forged.clear()
        self.delivered = 0
        for delivery in self.account.rows["deliveries"].values():
            self.send(delivery)

    def send(self, delivery: Record) -> None:
        """Queue a delivery; a little chance in its time keeps anybody from relying on order."""
        if not delivery.get("failed"):
            chance = self._dice.random() * self.settings.shuffle
            heapq.heappush(self._queue, (delivery["due"] + chance, delivery["id"]))
            self.wake.set()

    async def run(self) -> None:
        """Deliver for ever."""
        async with httpx.AsyncClient(trust_env=False, follow_redirects=False) as client:
            while True:
                wait = self._queue[0][0] - self.account.now() if self._queue else None
                if wait is None or wait > 0:
                    self.wake.clear()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self.wake.wait(), wait)
                    continue
                await self._places.acquire()
                _, delivery = heapq.heappop(self._queue)
                task = asyncio.create_task(self._deliver(client, delivery))
                self._running.add(task)
                task.add_done_callback(self._finished)

    async def drain(self, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait until nothing is under way or due; False if that took longer than *timeout*."""
        give_up = time.monotonic() + timeout
        soon = self.settings.shuffle
        while self._running or (self._queue and self._queue[0][0] <= self.account.now() + soon):
            if time.monotonic() > give_up:
                return False
            await asyncio.sleep(0.01)
        return True

    def report(self) -> dict[str, Any]:
        """Return what is pending, what was given up, and how much arrived."""
        rows = list(self.account.rows["deliveries"].values())
        failed = [row for row in rows if row.get("failed")]
        pending = [row for row in rows if not row.get("failed")]
        counted = {"delivered": self.delivered, "forged_answers": list(self.forged)}
        return {"pending": pending, "failed": failed, **counted}

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._places.release()
        if not task.cancelled():
            task.result()

    async def _deliver(self, client: httpx.AsyncClient, delivery_id: str) -> None:
        rows = self.account.rows
        delivery = rows["deliveries"].get(delivery_id, {})
        endpoint = rows["webhook_endpoints"].get(delivery.get("endpoint", ""))
        event = rows["events"].get(delivery.get("event", ""))
        if endpoint is None or event is None:
            return self._put(delivery_id, None)
        fault = self.faults.strike(ON_WEBHOOK, event["type"], event["after"]["id"])
        kind, params = (fault.kind, fault.params) if fault else ("", {})
        if kind == "webhook_drop":
            return self._put(delivery_id, {**delivery, "failed": True})
        if fault and kind in ("webhook_delay", "webhook_reorder"):
            # The first of a group waits longest: its place in line becomes its delay.
            gap = (fault.times + 1) * params.get("gap", 0.3)
            wait = gap if kind == "webhook_reorder" else params.get("seconds", 60)
            return self._put(delivery_id, {**delivery, "due": self.account.now() + wait})
        version = endpoint["api_version"]
        if kind == "old_api_version":
            version = params.get("version", OLD_VERSION)
        body = orjson.dumps(event_shape(Unit(self.account), event, version))
        if kind == "webhook_forge":
            fake = body.replace(event["id"].encode(), b"evt_forged" + event["id"][-8:].encode())
            self.forged.append(await self._post(client, endpoint["url"], fake, "whsec_forged"))
        twice = kind == "webhook_duplicate" or self._dice.random() < self.settings.duplicates
        for _ in range(1 + twice):
            answer = await self._post(client, endpoint["url"], body, endpoint["signed_with"])
        return self._settle(delivery, event, heard=answer // 100 == OK)

    async def _post(self, client: httpx.AsyncClient, url: str, body: bytes, secret: str) -> int:
        at = str(int(time.time()))  # real time: receivers compare with their own clocks
        digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        headers = {"content-type": "application/json; charset=utf-8", "user-agent": "Stripe/1.0"}
        headers["stripe-signature"] = f"t={at},v1={digest}"
        patience = self.settings.webhook_timeout
        try:
            answer = await client.post(url, content=body, headers=headers, timeout=patience)
        except (httpx.HTTPError, httpx.InvalidURL):
            return 0
        return answer.status_code

    def _settle(self, delivery: Record, event: Record, *, heard: bool) -> None:
        attempts, gaps = delivery["attempts"] + 1, GAPS[self.settings.mode]
        if heard:
            self.delivered += 1
            self._put(delivery["id"], None)
            if event["type"] == "invoice.created" and not self.account.waiting[event["id"]]:
                unit = Unit(self.account)
                acknowledged(unit, event["after"]["id"])
                unit.commit()
        elif attempts > len(gaps):
            self._put(delivery["id"], {**delivery, "attempts": attempts, "failed": True})
        else:
            due = self.account.now() + gaps[attempts - 1] * self.settings.retry_scale
            self._put(delivery["id"], {**delivery, "attempts": attempts, "due": due})

    def _put(self, delivery_id: str, delivery: Record | None) -> None:
        self.account.commit([("deliveries", delivery_id, delivery)])
        if delivery is not None:
            self.send(delivery)
