"""What a flush knows under its lease: the ledger's picture, and what Stripe shows of the period.

The ledger's state is mirrored here after each write, so that several steps share one snapshot. What
Stripe shows is believed for the length of the lease only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from billing.budget import Lane
from billing.errors import ErrorCode, Refused, StripeRejected
from billing.invoicing import amounts
from billing.invoicing.metadata_keys import period_of
from billing.invoicing.remote_invoice import SeenInvoice, lines_are_complete
from billing.invoicing.snapshot import Lease, Op, OpKind, PeriodState, Snapshot, StripeLine
from billing.usage import LineKey, Price
from workers.flush.policy import FlushPorts

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
class Picture:
    """*began* is the boot clock before the lease was asked for, hence no later than the snapshot.

    *seen* is the period's invoice and *others* further invoices of the period, as read under this
    lease; None means not read.
    """

    ports: FlushPorts
    lease: Lease
    snapshot: Snapshot
    lane: Lane
    began: float
    seen: SeenInvoice | None = None
    others: tuple[SeenInvoice, ...] | None = None
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
            await self.read_invoice()
        if self.snapshot.invoice is None or listing:
            await self._list()
        self._log_drift()

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
            final=self.is_final,
        )
        self.snapshot = replace(
            snapshot,
            flight=None,
            final=self.is_final,
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

    @property
    def is_final(self) -> bool:
        """Whether an invoice of the period was seen to be a draft no longer."""
        return any(not each.is_draft for each in self.invoices)

    def next_seq(self) -> int:
        """A number that no flush of this period has used, also if the ledger was rewound."""
        flight = self.snapshot.flight
        known = (self.snapshot.seq, 0 if flight is None else flight.seq)
        return max(*known, *(each.seq for each in self.invoices)) + 1

    async def read_invoice(self) -> None:
        """Read the period's invoice; one that is gone is written off."""
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
        self.seen = await self.whole(body)

    def _log_drift(self) -> None:
        """What a person changed on our lines; the plan that follows puts it right."""
        if self.seen is None or not self.snapshot.lines:
            return
        drifted = [line for line in amounts.drift(self.snapshot, self.seen) if line.key is not None]
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
        ours = [body for body in bodies if period_of(body.get("metadata")) == self.snapshot.period]
        await self._remind([body for body in bodies if body not in ours])
        found = sorted(
            [await self.whole(body) for body in ours], key=lambda each: (each.created, each.id)
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
            period = period_of(body.get("metadata"))
            if period is None or period.end.timestamp() * 1000 < now - REMEMBERED_MS:
                continue
            known = await self.ports.ledger.peek(customer, period)
            unknown = known.invoice is None and known.flight is None  # or it is just being made
            if unknown and known.state is not PeriodState.SEALED:
                log.warning("flush.period_lost", customer=customer, period=str(period))
                await self.ports.ledger.request_verify(customer, period)

    async def whole(self, body: dict[str, Any]) -> SeenInvoice:
        """The invoice in *body* with all of its lines."""
        if lines_are_complete(body):
            return SeenInvoice.from_stripe(body)
        self.sent.calls += 1
        lines = await self.ports.stripe.pages(f"/v1/invoices/{body['id']}/lines", lane=self.lane)
        return SeenInvoice.from_stripe(body, lines)
