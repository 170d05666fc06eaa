"""One flush under one lease: what it knows, and the steps it can take.

The ledger's state is mirrored here after each write, so that several steps share one snapshot. What
Stripe shows is believed for the length of the lease only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from billing import bill, plan
from billing.budget import Lane
from billing.errors import (
    ErrorCode,
    KeyExpired,
    OutcomeUnknown,
    Refused,
    StripeBusy,
    StripeRejected,
)
from billing.seen import SeenInvoice, lines_are_complete
from billing.snapshot import Flight, Lease, Op, OpKind, PeriodState, Snapshot, StripeLine
from billing.stripe_api import Answer
from billing.usage import LineKey, Period, Price
from workers.ports import FlushPorts

log = structlog.get_logger(__name__)

GONE = 404

REMEMBERED_MS = 45 * 86_400_000
"""Every period that ended since is still in the ledger, sealed ones included."""

REPLAN = ("", None)
"""Stripe is not known to be up to any version of the ledger: plan again."""


@dataclass(slots=True)
class Sent:
    """What this flush did at Stripe, for the Sync that people look at."""

    lines_added: int = 0
    lines_updated: int = 0
    lines_removed: int = 0
    calls: int = 0

    def count(self, op: Op) -> None:
        """Add one request that was answered."""
        if op.kind is OpKind.ADD_LINES:
            self.lines_added += len(op.lines)
        elif op.kind is OpKind.UPDATE_LINES:
            self.lines_updated += len(op.lines)
        elif op.kind is OpKind.REMOVE_LINES:
            self.lines_removed += len(op.lines)


class PriceMissing(Refused):
    """The catalogue no longer has a price that recorded usage is counted at."""

    def __init__(self, price: str) -> None:
        super().__init__(
            ErrorCode.UNKNOWN_SKU,
            f"Usage is counted at price {price}, which Stripe does not know; restore it there.",
        )


@dataclass(slots=True)
class Run:
    """*began* is the boot clock before the lease was asked for, hence no later than the snapshot.

    *seen* is the period's invoice and *others* further invoices of the period, as read under this
    lease; None means not read. *fresh*: the flight was prepared under this lease, so a replayed
    answer means that somebody else has used its key.
    """

    ports: FlushPorts
    lease: Lease
    snapshot: Snapshot
    lane: Lane
    began: float
    seen: SeenInvoice | None = None
    others: tuple[SeenInvoice, ...] | None = None
    fresh: bool = False
    rejections: list[StripeRejected] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    sent: Sent = field(default_factory=Sent)

    async def prices(self, ids: set[str] | None = None) -> Mapping[str, Price]:
        """The prices *ids*, by default all that the snapshot pins; PriceMissing without one of them."""
        wanted = set(self.snapshot.prices.values()) if ids is None else ids
        found = await self.ports.catalogue.by_id(wanted)
        if missing := wanted - found.keys():
            raise PriceMissing(min(missing))
        return found

    async def look(self, *, listing: bool = False) -> None:
        """Read the period's invoice, and with *listing* look for others of the same period.

        An invoice that is gone makes room for its successor; one that we did not remember is ours
        again (its metadata names the period).
        """
        if self.snapshot.invoice is not None:
            await self._read()
        if self.snapshot.invoice is None or listing:
            await self._list()
        self._log_drift()

    async def prepare(self, flight: Flight) -> None:
        """Write *flight* down; the next step sends it."""
        await self.ports.ledger.prepare(self.lease, flight)
        self.snapshot = replace(self.snapshot, flight=flight)
        self.fresh = True

    async def execute(self) -> None:
        """Send the requests of the flight that are not done yet, then remember what they left."""
        flight = self._flight()
        touched = {self.snapshot.customer, *filter(None, [self.snapshot.invoice])}
        if unannounced := touched - self.touched:  # `written` ends one intent of each
            await self.ports.cache.intend_write(*sorted(unannounced))
        self.touched |= touched
        try:
            answer = await self._send_all(flight)
        except (StripeRejected, KeyExpired) as error:
            self._refused(error)
            answer = None
        if answer is None:
            await self.verify()
        else:
            await self._land(flight, answer)

    async def verify(self) -> None:
        """Drop the flight and believe what Stripe shows; the next step plans anew, under new keys.

        What was dropped may still arrive, so the period is in doubt from now on.
        """
        flight = self._flight()
        creating = flight.ops[0].kind is OpKind.CREATE
        self.seen, self.others = None, None
        if self.snapshot.invoice is not None:
            await self._read()
        if self.snapshot.flight is not None:
            await self.commit(
                lines={} if self.seen is None else self.seen.by_key,
                told=REPLAN,
                generation=self.snapshot.invoice_generation + creating,
                doubt=True,
            )

    async def commit(
        self,
        *,
        lines: Mapping[LineKey, StripeLine],
        told: tuple[str, str | None] | None = None,
        invoice: str | None = None,
        generation: int | None = None,
        doubt: bool = False,
    ) -> None:
        """Drop the flight and write down what Stripe has.

        *told* is the version and the verify request that Stripe is now up to (`REPLAN`: to none),
        *invoice* "" means that there is none any more; None leaves either as it is.
        """
        snapshot, seq = self.snapshot, self.next_seq() - 1
        version, verify = told or (None, None)
        known = snapshot.invoice if invoice is None else invoice or None
        await self.ports.ledger.commit(
            self.lease,
            version=version,
            verify=verify,
            invoice=known,
            lines=lines,
            seq=seq,
            invoice_generation=generation,
            doubt=doubt,
        )
        self.snapshot = replace(
            snapshot,
            flight=None,
            lines=dict(lines),
            invoice=known,
            synced=snapshot.synced if version is None else version or None,
            verify_done=snapshot.verify_done if verify is None else verify,
            seq=seq,
            invoice_generation=snapshot.invoice_generation if generation is None else generation,
            ambiguous_ms=snapshot.now_ms if doubt else snapshot.ambiguous_ms,
        )

    @property
    def invoices(self) -> tuple[SeenInvoice, ...]:
        """Every invoice of the period that was read under this lease."""
        return (*filter(None, [self.seen]), *(self.others or ()))

    def next_seq(self) -> int:
        """A number that no flush of this period has used, also if the ledger was rewound."""
        flight = self.snapshot.flight
        known = (self.snapshot.seq, 0 if flight is None else flight.seq)
        return max(*known, *(each.seq for each in self.invoices)) + 1

    def _flight(self) -> Flight:
        if self.snapshot.flight is None:
            raise RuntimeError("no flight is prepared")
        return self.snapshot.flight

    async def _send_all(self, flight: Flight) -> Answer | None:
        """The last answer; None when a key turns out to have been used by somebody else."""
        answer = None
        for index, op in enumerate(flight.ops):
            if op.done:
                continue
            answer = await self._send(flight, op)
            if answer.replayed and self.fresh:
                log.warning("flush.key_was_used", customer=self.snapshot.customer, key=op.key)
                return None
            self.sent.count(op)
            if op is not flight.ops[-1]:
                await self.ports.ledger.mark(self.lease, index)
        return answer

    async def _send(self, flight: Flight, op: Op) -> Answer:
        await self.ports.ledger.renew(self.lease, self.ports.policy.lease)
        not_after = self.began + (flight.first_ms + self._life(op) - self.snapshot.now_ms) / 1000
        self.sent.calls += 1
        try:
            return await self.ports.stripe.send(op, lane=self.lane, not_after=not_after)
        except OutcomeUnknown:
            await self.ports.ledger.in_doubt(self.lease)
            raise
        except KeyExpired as error:
            if self.snapshot.now_ms <= flight.first_ms + self._life(op):
                # Only this worker froze; another may still send the request in time.
                raise StripeBusy(
                    "This worker stood still for too long; nothing was sent."
                ) from error
            raise
        except StripeRejected as error:
            if op.kind is OpKind.DELETE and error.status == GONE:
                return Answer({"id": op.path.rpartition("/")[2]}, False, error.request_id)
            raise

    def _life(self, op: Op) -> int:
        """How long (ms) after it was decided a request may be sent; finalizing is decided anew sooner.

        The door looks at the clock when the first byte leaves, so that a worker that froze sends nothing.
        """
        policy = self.ports.policy
        return policy.intent if op.kind is OpKind.FINALIZE else policy.key_life

    def _refused(self, error: StripeRejected | KeyExpired) -> None:
        if isinstance(error, StripeRejected):
            self.rejections.append(error)
        log.warning("flush.refused", customer=self.snapshot.customer, error=type(error).__name__)

    async def _land(self, flight: Flight, answer: Answer) -> None:
        kind = flight.ops[-1].kind
        if kind is OpKind.CREATE:
            self.seen = None if answer.replayed else SeenInvoice.from_stripe(answer.body)
            await self.commit(lines={}, invoice=answer.body["id"])
        elif kind is OpKind.DELETE:
            await self._land_deletion(answer.body["id"])
        else:
            await self._land_bulk(flight, answer)

    async def _land_deletion(self, gone: str) -> None:
        if gone == self.snapshot.invoice:
            self.seen = None
            await self.commit(
                lines={},
                invoice="",
                generation=self.snapshot.invoice_generation + 1,
            )
        else:
            self.others = tuple(each for each in self.others or () if each.id != gone)
            await self.commit(lines=self.snapshot.lines)

    async def _land_bulk(self, flight: Flight, answer: Answer) -> None:
        """Compare what Stripe shows now with the plan; what differs is planned again."""
        if self._implied(flight, answer):
            lines, self.seen = self._standing_after(flight), None
            await self.commit(lines=lines, told=(flight.version, flight.verify))
            return
        if answer.replayed:
            await self._read()
        else:
            self.seen = await self._whole(answer.body)
        if self.seen is None:
            return  # the invoice is gone, and written off
        marked = (self.seen.seq, self.seen.version) == (flight.seq, flight.version)
        finalizing = flight.ops[-1].kind is OpKind.FINALIZE
        agreed = (marked or finalizing) and not plan.difference(flight.landed, self.seen.ours)
        told = (flight.version, flight.verify) if agreed else REPLAN
        await self.commit(lines=self.seen.by_key, told=told)

    def _implied(self, flight: Flight, answer: Answer) -> bool:
        """Whether the answer needs no reading: it carries our mark, and the lines kept their ids.

        Stripe embeds ten lines in an answer and reads are rationed, writes are not.
        """
        shown = answer.body.get("metadata") or {}
        marked = (shown.get("gw_seq"), shown.get("gw_ver")) == (str(flight.seq), flight.version)
        grown = any(op.kind not in (OpKind.UPDATE_LINES, OpKind.REMOVE_LINES) for op in flight.ops)
        partial = not lines_are_complete(answer.body)
        return partial and marked and self.fresh and not answer.replayed and not grown

    def _standing_after(self, flight: Flight) -> dict[LineKey, StripeLine]:
        before = self.snapshot.lines if self.seen is None else self.seen.by_key
        return {
            key: StripeLine(before[key].id, line.quantity, line.price, line.amount)
            for key, line in flight.landed.items()
        }

    async def _read(self) -> None:
        invoice = self.snapshot.invoice
        path = f"/v1/invoices/{invoice}"
        await self.ports.ledger.renew(self.lease, self.ports.policy.lease)
        self.sent.calls += 1
        try:
            body = await self.ports.stripe.read(path, lane=self.lane)
        except StripeRejected as error:
            if error.status != GONE:
                raise
            log.warning("flush.invoice_gone", customer=self.snapshot.customer, invoice=invoice)
            await self.commit(
                lines={},
                told=REPLAN,
                invoice="",
                generation=self.snapshot.invoice_generation + 1,
                doubt=True,
            )
            return
        self.seen = await self._whole(body)

    def _log_drift(self) -> None:
        """What a person changed on our lines; the plan that follows puts it right."""
        if self.seen is None or not self.snapshot.lines:
            return
        drifted = [line for line in bill.drift(self.snapshot, self.seen) if line.key is not None]
        if drifted:
            log.warning(
                "drift.found",
                customer=self.snapshot.customer,
                invoice=self.seen.id,
                kinds=sorted({line.kind for line in drifted}),
                lines=len(drifted),
            )

    async def _list(self) -> None:
        """Find every invoice of this period by its metadata (Search lags, so it is no use here)."""
        await self.ports.ledger.renew(self.lease, self.ports.policy.lease)
        self.sent.calls += 1
        bodies = await self.ports.stripe.pages(
            "/v1/invoices",
            {"customer": self.snapshot.customer},
            lane=self.lane,
        )
        ours = [body for body in bodies if _period_of(body) == self.snapshot.period]
        await self._remind([body for body in bodies if body not in ours])
        found = sorted(
            [await self._whole(body) for body in ours], key=lambda each: (each.created, each.id)
        )
        if self.snapshot.invoice is None and found:
            adopted = next((each for each in found if not each.is_draft), found[0])
            log.info("flush.adopted", customer=self.snapshot.customer, invoice=adopted.id)
            await self.commit(lines=adopted.by_key, told=REPLAN, invoice=adopted.id)
            self.seen = adopted
        self.others = tuple(each for each in found if each.id != self.snapshot.invoice)

    async def _remind(self, bodies: list[dict[str, Any]]) -> None:
        """A ledger that was rewound may have lost a whole period: Stripe's invoice reminds it.

        A period that ended long ago was sealed and forgotten in good order.
        """
        customer, now = self.snapshot.customer, self.snapshot.now_ms
        for body in bodies:
            period = _period_of(body)
            if period is None or period.end.timestamp() * 1000 < now - REMEMBERED_MS:
                continue
            known = await self.ports.ledger.peek(customer, period)
            if known.invoice is None and known.state is not PeriodState.SEALED:
                log.warning("flush.period_lost", customer=customer, period=str(period))
                await self.ports.ledger.request_verify(customer, period)

    async def _whole(self, body: dict[str, Any]) -> SeenInvoice:
        if lines_are_complete(body):
            return SeenInvoice.from_stripe(body)
        self.sent.calls += 1
        lines = await self.ports.stripe.pages(f"/v1/invoices/{body['id']}/lines", lane=self.lane)
        return SeenInvoice.from_stripe(body, lines)


def _period_of(body: Mapping[str, Any]) -> Period | None:
    """The period that our metadata names; None for other people's invoices."""
    try:
        return Period.parse((body.get("metadata") or {}).get("gw_period", ""))
    except ValueError:
        return None
