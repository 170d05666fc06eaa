"""One flush under one lease: write requests down, send them, and take in what they did."""

from dataclasses import dataclass, field, replace

import structlog

from billing.errors import KeyExpired, OutcomeUnknown, StripeBusy, StripeRejected
from billing.invoicing import diff, metadata_keys
from billing.invoicing.remote_invoice import SeenInvoice, lines_are_complete
from billing.invoicing.snapshot import Flight, Op, OpKind, StripeLine
from billing.stripe import Answer
from billing.usage import LineKey
from workers.flush.state import GONE, REPLAN, Picture

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Run(Picture):
    """A flush that writes.

    *fresh*: the flight was prepared under this lease, so a replayed answer means that somebody else
    has used its key. *rejections* are Stripe's, *touched* what the cache was told of.
    """

    fresh: bool = False
    rejections: list[StripeRejected] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)

    async def prepare(self, flight: Flight) -> bool:
        """Write *flight* down; the next step sends it. False if it would finalize without a correction."""
        if not await self.ports.ledger.prepare(self.lease, flight):
            return False
        self.snapshot = replace(self.snapshot, flight=flight)
        self.fresh = True
        return True

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
            await self.read_invoice()
        if self.snapshot.flight is not None:
            await self.commit(
                lines={} if self.seen is None else self.seen.by_key,
                told=REPLAN,
                generation=self.snapshot.invoice_generation + creating,
                doubt=True,
            )

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
            await self.read_invoice()
        else:
            self.seen = await self.whole(answer.body)
        if self.seen is None:
            return  # the invoice is gone, and written off
        marked = (self.seen.seq, self.seen.version) == (flight.seq, flight.version)
        finalizing = flight.ops[-1].kind is OpKind.FINALIZE
        agreed = (marked or finalizing) and not diff.difference(flight.landed, self.seen.ours)
        told = (flight.version, flight.verify) if agreed else REPLAN
        await self.commit(lines=self.seen.by_key, told=told)

    def _implied(self, flight: Flight, answer: Answer) -> bool:
        """Whether the answer needs no reading: it carries our mark, and the lines kept their ids.

        Stripe embeds ten lines in an answer and reads are rationed, writes are not.
        """
        shown = answer.body.get("metadata") or {}
        marked = (shown.get(metadata_keys.SEQ), shown.get(metadata_keys.VERSION)) == (
            str(flight.seq),
            flight.version,
        )
        grown = any(op.kind not in (OpKind.UPDATE_LINES, OpKind.REMOVE_LINES) for op in flight.ops)
        partial = not lines_are_complete(answer.body)
        return partial and marked and self.fresh and not answer.replayed and not grown

    def _standing_after(self, flight: Flight) -> dict[LineKey, StripeLine]:
        before = self.snapshot.lines if self.seen is None else self.seen.by_key
        return {
            key: StripeLine(before[key].id, line.quantity, line.price, line.amount)
            for key, line in flight.landed.items()
        }
