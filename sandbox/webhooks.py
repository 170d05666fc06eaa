"""Deliveries: signed afresh each time, tried again with growing gaps, in no promised order."""

import asyncio
import hashlib
import heapq
import hmac
import random
import time
from collections import deque
from typing import Any, Final

import httpx
import orjson

from sandbox.account import Account, Unit
from sandbox.errors import missing
from sandbox.faults import ON_WEBHOOK, Faults
from sandbox.finalization import webhooks_delivered
from sandbox.settings import Settings
from sandbox.shapes import event as event_shape
from sandbox.state import Record

# Stripe tries for three days in live mode, three times over some hours in a sandbox.
GAPS: Final = {
    "live": (60, 300, 1800, 3600, 7200, 14400, 28800, 57600, 57600, 57600),
    "sandbox": (1800, 5400),
}
OLD_VERSION: Final = "2022-11-15"
AT_ONCE: Final = 32


class Courier:
    """Carries every queued delivery to its endpoint until it is acknowledged or given up."""

    def __init__(self, account: Account, settings: Settings, faults: Faults) -> None:
        self.account, self.settings, self.faults = account, settings, faults
        self.delivered = 0
        self.forged: deque[int] = deque(maxlen=1000)
        self._dice = random.Random(f"webhooks:{account.seed}")  # noqa: S311
        self._queue: list[tuple[float, str]] = []
        self._running: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._places = asyncio.Semaphore(AT_ONCE)
        account.on_delivery = self.send
        self.reload()

    def reload(self) -> None:
        """Queue what the state says is still to be delivered."""
        self._queue.clear()
        self.delivered = 0
        self.forged.clear()
        for delivery in self.account.state.rows["deliveries"].values():
            self.send(delivery)

    def send(self, delivery: Record) -> None:
        """Queue a delivery; a little chance in its time keeps anybody from relying on order."""
        if not delivery.get("failed"):
            chance = self._dice.random() * self.settings.shuffle
            heapq.heappush(self._queue, (delivery["due"] + chance, delivery["id"]))
            self._wake.set()

    def clock_moved(self) -> None:
        """Look again at what is due."""
        self._wake.set()

    async def run(self) -> None:
        """Deliver for ever."""
        async with httpx.AsyncClient(trust_env=False, follow_redirects=False) as client:
            while True:
                wait = self._queue[0][0] - self.account.clock.now() if self._queue else None
                if wait is not None and wait <= 0:
                    await self._start(client, heapq.heappop(self._queue)[1])
                    continue
                self._wake.clear()
                try:
                    await asyncio.wait_for(self._wake.wait(), wait)
                except TimeoutError:
                    continue

    async def drain(self, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait until nothing is under way or due; False if that took longer than *timeout*."""
        give_up = time.monotonic() + timeout
        while self._running or self._due():
            if time.monotonic() > give_up:
                return False
            await asyncio.sleep(0.01)
        return True

    def report(self) -> dict[str, Any]:
        """Return what is pending, what was given up, and how much arrived."""
        rows = self.account.state.rows["deliveries"].values()
        shown = [{**row, "type": self._event(row).get("type")} for row in rows]
        return {
            "pending": [row for row in shown if not row.get("failed")],
            "failed": [row for row in shown if row.get("failed")],
            "delivered": self.delivered,
            "forged_answers": list(self.forged),
        }

    def _due(self) -> bool:
        soon = self.account.clock.now() + self.settings.shuffle
        return bool(self._queue) and self._queue[0][0] <= soon

    async def _start(self, client: httpx.AsyncClient, delivery: str) -> None:
        await self._places.acquire()
        task = asyncio.create_task(self._deliver(client, delivery))
        self._running.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._places.release()
        if not task.cancelled():
            task.result()

    async def _deliver(self, client: httpx.AsyncClient, delivery_id: str) -> None:
        unit = Unit(self.account)
        delivery = unit.find("deliveries", delivery_id)
        endpoint = unit.find("webhook_endpoints", (delivery or {}).get("endpoint"))
        event = unit.find("events", (delivery or {}).get("event"))
        if delivery is None or endpoint is None or event is None:
            unit.drop("deliveries", delivery_id)
            unit.commit()
            return
        version, copies = (
            endpoint["api_version"],
            1 + (self._dice.random() < self.settings.duplicates),
        )
        fault = self.faults.strike(ON_WEBHOOK, event["type"], event["_after"]["id"])
        kind, params = (fault.kind, fault.params) if fault else ("", {})
        if kind in ("webhook_drop", "webhook_delay", "webhook_reorder"):
            self._put_off(delivery, kind, params, fault.times if fault else 0)
            return
        if kind == "old_api_version":
            version = params.get("version", OLD_VERSION)
        elif kind == "webhook_duplicate":
            copies = 2
        body = orjson.dumps(event_shape(unit, event, version))
        if kind == "webhook_forge":
            self.forged.append(
                await self._post(client, endpoint["url"], _forged(body), "whsec_forged")
            )
        answers = [
            await self._post(client, endpoint["url"], body, endpoint["secret"])
            for _ in range(copies)
        ]
        self._settle(delivery, event, acknowledged=200 <= answers[-1] < 300)  # noqa: PLR2004

    def _put_off(self, delivery: Record, kind: str, params: dict[str, Any], left: int) -> None:
        unit = Unit(self.account)
        if kind == "webhook_drop":
            unit.put("deliveries", {**delivery, "failed": True})
        else:
            seconds = params.get("seconds", 60) if kind == "webhook_delay" else 0
            # The first of a group waits longest: its place in line becomes its delay.
            seconds = seconds or (left + 1) * params.get("gap", 0.3)
            later = {**delivery, "due": self.account.clock.now() + seconds}
            self.send(unit.put("deliveries", later))
        unit.commit()

    async def _post(self, client: httpx.AsyncClient, url: str, body: bytes, secret: str) -> int:
        headers = {
            "content-type": "application/json; charset=utf-8",
            "user-agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            "stripe-signature": signature(body, secret),
        }
        try:
            answer = await client.post(
                url, content=body, headers=headers, timeout=self.settings.webhook_timeout
            )
        except (httpx.HTTPError, httpx.InvalidURL):
            return 0
        return answer.status_code

    def _settle(self, delivery: Record, event: Record, *, acknowledged: bool) -> None:
        unit = Unit(self.account)
        attempts = delivery["attempts"] + 1
        gaps = GAPS[self.settings.mode]
        if acknowledged:
            self.delivered += 1
            unit.drop("deliveries", delivery["id"])
            last = self.account.state.waiting.get(event["id"], 0) <= 1
            if event["type"] == "invoice.created" and last:
                webhooks_delivered(unit, event["_after"]["id"])
        elif attempts > len(gaps):
            unit.put("deliveries", {**delivery, "attempts": attempts, "failed": True})
        else:
            gap = gaps[attempts - 1] * self.settings.retry_scale
            due = self.account.clock.now() + gap
            self.send(unit.put("deliveries", {**delivery, "attempts": attempts, "due": due}))
        unit.commit()

    def _event(self, delivery: Record) -> Record:
        return self.account.state.rows["events"].get(delivery["event"], {})

    def resend(self, event: str) -> None:
        """Queue an event again for every endpoint that selected it, as the Dashboard's button does."""
        unit = Unit(self.account)
        record = unit.find("events", event)
        if record is None:
            raise missing("event", event)
        for endpoint in unit.hearers(record["type"]):
            fresh = {"event": event, "endpoint": endpoint, "attempts": 0}
            self.send(unit.new("deliveries", fresh | {"due": self.account.clock.now()}))
        unit.commit()


def signature(body: bytes, secret: str) -> str:
    """Sign *body* now, by real time: receivers compare with their own clocks."""
    at = str(int(time.time()))
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def _forged(body: bytes) -> bytes:
    fake = orjson.loads(body)
    fake["id"] = "evt_forged" + fake["id"][-8:]
    return orjson.dumps(fake)
