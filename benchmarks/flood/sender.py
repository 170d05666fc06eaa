"""Deliveries as Stripe and forgers send them: doubled, out of order, forged, broken.

They come from a process of their own that runs when nobody else would (SCHED_IDLE): what stands for other
people's machines shall take no CPU from the gateways, nor from whoever measures them.
"""

import asyncio
import hmac
import math
import random
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import uvloop

from benchmarks.http_load import Run, load, post
from billing.stripe import API_VERSION

SECRET = "whsec_flood_0123456789abcdef"
PATH = "/webhooks/stripe"
NAME = b"evt_flood"
FORGED = b"evt_forged"
SHARES = {"late": 0.1, "caught up": 0.1, "twice": 0.2, "forged": 0.01, "garbage": 0.001}
LATE = 500  # places in line that a delivery loses at most
RECENT = 5_000  # events among which the doubled ones are chosen
KINDS = [
    *["invoice.updated"] * 12,
    *["customer.updated"] * 6,
    "payment_intent.created",
    "product.updated",
]
FOREVER = 86_400.0

Bodies = list[tuple[dict[str, Any], dict[str, Any]]]
"""A customer and its invoice, as Stripe shows them in events."""


@dataclass(frozen=True)
class Target:
    """A server and its process."""

    port: int
    process: int


@dataclass(frozen=True)
class Stage:
    """*events* events, numbered from *first*; at most *rate* a second.

    *shares* say how many of them come late, twice, and so on.
    """

    first: int
    events: int
    connections: int
    rate: float = math.inf
    shares: Mapping[str, float] = field(default_factory=lambda: SHARES)


@dataclass
class Sent:
    """The deliveries sent and their results; *run* counts refused ones as failures."""

    run: Run = field(default_factory=lambda: Run(0, 0.0, 0.0, 0))
    genuine: int = 0
    forged: int = 0
    garbage: int = 0

    @property
    def bad(self) -> int:
        """The number of deliveries that must be refused."""
        return self.forged + self.garbage

    def add(self, run: Run) -> None:
        """Another slice, at the same time for its sum of servers."""
        mine = self.run
        self.run = replace(
            mine,
            answers=mine.answers + run.answers,
            cpu=mine.cpu + run.cpu,
            failures=mine.failures + run.failures,
        )


def send(stage: Stage, targets: list[Target], bodies: Bodies) -> Sent:
    """Send everything of *stage*; ends when all is answered."""
    return uvloop.run(deliver(stage, targets, bodies))


async def deliver(stage: Stage, targets: list[Target], bodies: Bodies) -> Sent:
    """As ``send``, on this event loop."""
    sent = Sent()
    requests = deliveries(stage, bodies, sent)
    began = time.perf_counter()
    connections, rate = stage.connections // len(targets), stage.rate / len(targets)
    doing = (load(at.port, at.process, requests, connections, FOREVER, rate) for at in targets)
    for run in await asyncio.gather(*doing):
        sent.add(run)
    sent.run.seconds = time.perf_counter() - began
    return sent


def deliveries(stage: Stage, bodies: Bodies, sent: Sent) -> Iterator[bytes]:
    """The requests, in the order in which they leave; counted in *sent*."""
    dice = random.Random(stage.first)
    frames = _frames(bodies)
    late: deque[bytes] = deque()
    recent: deque[bytes] = deque(maxlen=RECENT)
    for number in range(stage.first, stage.first + stage.events):
        before, after = dice.choice(frames)
        body = b"%s%s%d%s" % (before, NAME, number, after)
        recent.append(body)
        happens = {what: dice.random() < share for what, share in stage.shares.items()}
        leaving = [] if happens["late"] else [body]
        if happens["late"]:
            late.append(body)
        if late and (len(late) > LATE or happens["caught up"]):
            leaving.append(late.popleft())
        if happens["twice"]:
            leaving.append(dice.choice(recent))
        for writer in leaving:
            sent.genuine += 1
            yield signed(writer)
        if happens["forged"]:
            sent.forged += 1
            yield signed(b"%s%s%d%s" % (before, FORGED, number, after), "whsec_somebody_guesses")
        if happens["garbage"]:
            sent.garbage += 1
            yield signed(dice.choice([body[: len(body) // 2], b"\xff\xfe" + body, b"[" * 9000]))
    for task in late:
        sent.genuine += 1
        yield signed(task)


def _frames(bodies: Bodies) -> list[tuple[bytes, bytes]]:
    """Events of every kind about everybody, as what stands before and after their name."""
    kinds = [(kind, kind.startswith("customer")) for kind in KINDS]
    events = (event(0, kind, pair[not own]) for pair in bodies for kind, own in kinds)
    parted = (event.partition(NAME + b"0") for event in events)
    return [(before, after) for before, _, after in parted]


def event(number: int, kind: str, subject: dict[str, Any]) -> bytes:
    """An event about *subject*."""
    return orjson.dumps(
        {
            "id": f"{NAME.decode()}{number}",
            "object": "event",
            "api_version": API_VERSION,
            "created": int(time.time()),
            "data": {"object": subject, "previous_attributes": {}},
            "livemode": False,
            "pending_webhooks": 1,
            "request": {"id": "req_dashboard", "idempotency_key": None},
            "type": kind,
        }
    )


def signed(body: bytes, secret: str = SECRET) -> bytes:
    """The request that brings *body*."""
    return post(PATH, body, **{"Stripe-Signature": signature(body, secret)})


def signature(body: bytes, secret: str = SECRET) -> str:
    """As Stripe signs *body* now."""
    moment = int(time.time())
    digest = hmac.digest(secret.encode(), b"%d." % moment + body, "sha256")
    return f"t={moment},v1={digest.hex()}"
