"""Webhooks: signed afresh each time, tried again with growing gaps, in no promised order."""

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
from sandbox.faults import ON_WEBHOOK, Faults
from sandbox.invoices import acknowledged
from sandbox.params import Params
from sandbox.sdk import API_VERSION, Json
from sandbox.serializers import shape, show_event

# Stripe tries for three days in live mode, three times over some hours in a sandbox.
GAPS: Final = {
    "live": (60, 300, 1800, 3600, 7200, 14400, 28800, 57600, 57600, 57600),
    "sandbox": (1800, 5400),
}
AT_ONCE: Final = 32
PAUSE: Final = 0.02
OK: Final = 2


def _create_endpoint(account: Account, params: Params) -> Json:
    """Register an endpoint; its version is fixed here and its secret is shown only here."""
    secret = params.pop("secret", None) or account.new_id("whsec_")
    record = {"api_version": API_VERSION, "signed_with": secret, "status": "enabled"}
    made = account.create("webhook_endpoints", record | params)
    return shape(account, "webhook_endpoints", made) | {"secret": secret}


def _update_endpoint(account: Account, params: Params, endpoint: str) -> Record:
    if "disabled" in params:
        params["status"] = "disabled" if params.pop("disabled") else "enabled"
    return account.change("webhook_endpoints", account.get("webhook_endpoints", endpoint), params)


ACTIONS: Final[Mapping[str, Any]] = {
    "POST /v1/webhook_endpoints": _create_endpoint,
    "POST /v1/webhook_endpoints/*": _update_endpoint,
}


class Courier:
    """Carries every delivery that is due to its endpoint until it is heard or given up."""

    def __init__(self, account: Account, faults: Faults) -> None:
        self.account, self.settings, self.faults = account, account.settings, faults
        self.delivered = 0
        self.forged: deque[int] = deque(maxlen=1000)
        self._dice = random.Random(f"webhooks:{account.seed}")  # noqa: S311
        self._under_way: set[str] = set()

    async def run(self) -> None:
        """Deliver for ever, so many at once."""
        async with httpx.AsyncClient(trust_env=False) as client, asyncio.TaskGroup() as group:
            while True:
                waiting = (each for each in self._due() if each["id"] not in self._under_way)
                for delivery in list(islice(waiting, AT_ONCE - len(self._under_way))):
                    self._under_way.add(delivery["id"])
                    group.create_task(self._carry(client, delivery))
                await asyncio.sleep(PAUSE)

    def clear(self) -> None:
        """Forget what was delivered."""
        self.delivered = 0
        self.forged.clear()

    async def drain(self, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait until nothing is under way or due; False if that took longer than *timeout*."""
        give_up = time.monotonic() + timeout
        while busy := bool(self._due(self.settings.shuffle)):
            if time.monotonic() > give_up:
                break
            await asyncio.sleep(PAUSE)
        return not busy

    def report(self) -> dict[str, Any]:
        """Return what is pending, what was given up, and how much arrived."""
        rows = list(self.account.rows["deliveries"].values())
        failed = [row for row in rows if row.get("failed")]
        pending = [row for row in rows if not row.get("failed")]
        counted = {"delivered": self.delivered, "forged_answers": list(self.forged)}
        return {"pending": pending, "failed": failed, **counted}

    def _due(self, soon: float = 0) -> list[Record]:
        by, rows = self.account.time() + soon, self.account.rows["deliveries"].values()
        return [each for each in rows if each["due"] <= by and not each.get("failed")]

    async def _carry(self, client: httpx.AsyncClient, delivery: Record) -> None:
        try:
            await self._deliver(client, delivery)
        finally:
            self._under_way.discard(delivery["id"])

    async def _deliver(self, client: httpx.AsyncClient, delivery: Record) -> None:
        rows = self.account.rows
        endpoint = rows["webhook_endpoints"].get(delivery["endpoint"])
        event = rows["events"].get(delivery["event"])
        if endpoint is None or event is None:
            with self.account.unit():
                return self.account.drop("deliveries", delivery)
        fault = self.faults.strike(ON_WEBHOOK, event["type"], event["after"]["id"])
        match kind := fault["kind"]:
            case "webhook_drop":
                return self._put(delivery, failed=True)
            case "webhook_delay":
                return self._put(delivery, due=self.account.time() + fault["seconds"])
            case "webhook_reorder":  # the first of a group waits longest
                wait = (fault["times"] + 1) * fault["gap"]
                return self._put(delivery, due=self.account.time() + wait)
        version = fault.get("version") or endpoint["api_version"]
        body = orjson.dumps(show_event(self.account, event, version))
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
            with self.account.unit():
                self.account.drop("deliveries", delivery)
                if event["type"] == "invoice.created" and not self.account.waiting(event["id"]):
                    acknowledged(self.account, event["after"]["id"])
        elif attempts > len(gaps):
            self._put(delivery, attempts=attempts, failed=True)
        else:
            wait = gaps[attempts - 1] * self.settings.retry_scale
            self._put(delivery, attempts=attempts, due=self.account.time() + wait)

    def _put(self, delivery: Record, **new: Any) -> None:
        with self.account.unit():
            self.account.put("deliveries", {**delivery, **new})
