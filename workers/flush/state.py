"""State of a flush under its lease: the ledger's snapshot, and the period's invoices as Stripe shows them.

The snapshot is updated after each write, so all steps share one. Stripe's side is trusted only as long as
the lease lasts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import structlog

from billing.budget import Lane
from billing.errors import StripeRejected
from billing.invoicing import amounts
from billing.invoicing.metadata_keys import period_of
from billing.invoicing.remote_invoice import RemoteInvoice, RemoteLine, has_all_lines, originals
from billing.invoicing.snapshot import Lease, PeriodState, Snapshot, StripeLine
from billing.ledger import LeasedPeriod
from billing.ledger.policy import RECOVERY_WINDOW_MS
from billing.stripe.price_catalog import PriceMissing
from billing.usage import LineKey, Price
from workers.flush.policy import FlushContext
from workers.flush.stats import FlushStats

log = structlog.get_logger(__name__)

NOT_FOUND = 404
LINES_READ = 200  # of an invoice, before its other lines are compared by their sum

REPLAN = ("", None)
"""`FlushState.commit(synced_to=)`: Stripe is at no known version of the ledger, so plan again."""


@dataclass(slots=True)
class FlushState:
    """*started_at* is the boot clock before the lease was acquired, so it is not later than the snapshot.

    *invoice* is the period's invoice and *other_invoices* are further invoices of the period, as fetched
    under this lease; None if not fetched. *reviewed*: they show no usage that the ledger has lost, or the loss
    was accepted; until then the ledger learns no sequence number from them. *sent*: lines of earlier flushes.
    """

    context: FlushContext
    lease: Lease
    snapshot: Snapshot
    lane: Lane
    started_at: float
    invoice: RemoteInvoice | None = None
    other_invoices: tuple[RemoteInvoice, ...] | None = None
    reviewed: bool = False
    sent: frozenset[LineKey] = frozenset()
    stats: FlushStats = field(default_factory=FlushStats)

    @classmethod
    def begin(
        cls, context: FlushContext, leased: LeasedPeriod, lane: Lane, started_at: float
    ) -> Self:
        """Return the state in which a flush begins."""
        snapshot, batch = leased.snapshot, leased.snapshot.batch
        sent = frozenset({*snapshot.lines, *(batch.expected_lines if batch else ())})
        return cls(context, leased.lease, snapshot, lane, started_at, sent=sent)

    @property
    def invoices(self) -> tuple[RemoteInvoice, ...]:
        """All invoices of the period that were fetched under this lease."""
        return (*filter(None, [self.invoice]), *(self.other_invoices or ()))

    @property
    def is_final(self) -> bool:
        """True if a fetched invoice of the period is no longer a draft."""
        return any(not invoice.is_draft for invoice in self.invoices)

    def next_seq(self) -> int:
        """Return a number that no flush of this period has used, even if the ledger was rewound."""
        return max(self.snapshot.last_seq, *(invoice.seq for invoice in self.invoices), 0) + 1

    async def prices(self, ids: set[str] | None = None) -> Mapping[str, Price]:
        """Return the prices *ids*, by default all that the snapshot pins; PriceMissing if one is missing."""
        required = set(self.snapshot.prices.values()) if ids is None else ids
        found = await self.context.price_catalog.by_id(required)
        if missing := required - found.keys():
            raise PriceMissing(min(missing))
        return found

    async def commit(
        self,
        *,
        lines: Mapping[LineKey, StripeLine],
        synced_to: tuple[str, str | None] | None = None,
        invoice: str | None = None,
        generation: int | None = None,
        in_doubt: bool = False,
    ) -> None:
        """Drop the request batch and store what Stripe has; None leaves a value as it is.

        *synced_to*: the version and the verify request that it is up to (`REPLAN`: none). *invoice* "": none.
        """
        snapshot, (version, verify) = self.snapshot, synced_to or (None, None)
        invoice_id = snapshot.invoice if invoice is None else invoice or None
        await self.context.ledger.leases.commit(
            self.lease,
            version=version,
            verify=verify,
            invoice=invoice_id,
            lines=lines,
            seq=snapshot.last_seq,
            invoice_generation=generation,
            in_doubt=in_doubt,
            final=self.is_final,
            rewound=snapshot.rewound,
            stripe_version=snapshot.stripe_version,
        )
        self.snapshot = replace(
            snapshot,
            batch=None,
            final=self.is_final,
            lines=dict(lines),
            invoice=invoice_id,
            synced_version=snapshot.synced_version if version is None else version or None,
            verify_done=snapshot.verify_done if verify is None else verify,
            seq=snapshot.last_seq,
            invoice_generation=snapshot.invoice_generation if generation is None else generation,
            in_doubt_since_ms=snapshot.now_ms if in_doubt else snapshot.in_doubt_since_ms,
        )

    async def fetch_invoices(self, *, listing: bool = False) -> None:
        """Fetch the period's invoice, and with *listing* search for others of the same period.

        If the invoice was deleted, a new one is made. An invoice that the ledger lost is adopted, because
        its metadata names the period.
        """
        self.reviewed = False
        if self.snapshot.invoice is not None and not listing:
            await self.fetch_invoice()
        if self.snapshot.invoice is None or listing:
            await self._list_invoices()
        self._log_drift()

    async def fetch_invoice(self) -> None:
        """Fetch the period's invoice; if it was deleted, commit that the period has none."""
        invoice = self.snapshot.invoice
        path = f"/v1/invoices/{invoice}"
        await self._renew_lease()
        self.stats.calls += 1
        try:
            body = await self.context.stripe.read(path, lane=self.lane)
        except StripeRejected as error:
            if error.status != NOT_FOUND:
                raise
            log.warning("flush.invoice_deleted", customer=self.snapshot.customer, invoice=invoice)
            generation = self.snapshot.invoice_generation + 1
            await self.commit(
                lines={}, synced_to=REPLAN, invoice="", generation=generation, in_doubt=True
            )
            return
        self.invoice = await self.with_all_lines(body)

    async def with_all_lines(
        self, body: dict[str, Any], expected: RemoteInvoice | None = None
    ) -> RemoteInvoice:
        """Return the invoice in *body* with all of its lines.

        They are not read if *expected* has them, nor are the last ones of a long bill if the stored lines do.
        """
        if has_all_lines(body):
            return RemoteInvoice.from_stripe(body)
        if expected is not None and (shown := expected.as_shown(body)):
            return shown
        lines = await self._list_lines(body, limit=LINES_READ)
        if len(lines) == LINES_READ:
            partial = {**body, "lines": {"data": lines}}
            if shown := self._stored_invoice(body).as_shown(partial):
                return shown
            lines += await self._list_lines(body, starting_after=lines[-1]["id"])
        return RemoteInvoice.from_stripe(body, lines)

    async def _list_lines(
        self, body: dict[str, Any], *, limit: int | None = None, **cursor: str
    ) -> list[dict[str, Any]]:
        path = f"/v1/invoices/{body['id']}/lines"
        self.stats.calls += 1
        return await self.context.stripe.list_all(path, cursor, lane=self.lane, limit=limit)

    def _stored_invoice(self, body: dict[str, Any]) -> RemoteInvoice:
        """Return the invoice in *body* with the stored lines; without, if they are not to be relied on."""
        snapshot = self.snapshot
        doubt = snapshot.verify_pending or snapshot.in_doubt_since_ms
        lines = {} if doubt or body["id"] != snapshot.invoice else snapshot.lines
        stored = tuple(RemoteLine(key, line) for key, line in lines.items())
        return replace(RemoteInvoice.from_stripe(body, ()), lines=stored)

    async def _renew_lease(self) -> None:
        await self.context.ledger.leases.renew(self.lease, self.context.policy.lease_ms)

    async def _list_invoices(self) -> None:
        """Find all invoices of this period by their metadata (Stripe's Search is not up to date)."""
        await self._renew_lease()
        self.stats.calls += 1
        query = {"customer": self.snapshot.customer}
        bodies = await self.context.stripe.list_all("/v1/invoices", query, lane=self.lane)
        known, period = self.snapshot.invoice, self.snapshot.period
        ours = [body for body in bodies if body["id"] == known or period_of(body) == period]
        await self._recover_lost_periods([body for body in bodies if body not in ours])
        found = originals([await self.with_all_lines(body) for body in ours])
        if known is not None:
            self.invoice = next((invoice for invoice in found if invoice.id == known), None)
            if self.invoice is None:
                await self.fetch_invoice()  # deleted
        if self.snapshot.invoice is None and found:
            adopted = next((invoice for invoice in found if not invoice.is_draft), found[0])
            log.info("flush.adopted", customer=self.snapshot.customer, invoice=adopted.id)
            await self.commit(lines=adopted.lines_by_key, synced_to=REPLAN, invoice=adopted.id)
            self.invoice = adopted
        self.other_invoices = tuple(
            invoice for invoice in found if invoice.id != self.snapshot.invoice
        )

    async def _recover_lost_periods(self, bodies: list[dict[str, Any]]) -> None:
        """Request a verify of each period that has an invoice at Stripe but is unknown to the ledger.

        A rewound ledger may have lost it. Periods before the recovery window were sealed and expired.
        """
        customer, now = self.snapshot.customer, self.snapshot.now_ms
        for body in bodies:
            period = period_of(body)
            if period is None or period.end.timestamp() * 1000 < now - RECOVERY_WINDOW_MS:
                continue
            stored = await self.context.ledger.periods.snapshot(customer, period)
            unknown = stored.invoice is None and stored.batch is None  # not being created either
            if unknown and stored.state is not PeriodState.SEALED:
                log.warning("flush.period_lost", customer=customer, period=str(period))
                await self.context.ledger.periods.request_verify(customer, period)

    def _log_drift(self) -> None:
        """Log what a person changed on our lines; the flush restores them."""
        if self.invoice is None or not self.snapshot.lines:
            return
        drift = amounts.find_drift(self.snapshot, self.invoice, {})
        if drifted := [line for line in drift if line.key is not None]:
            log.warning(
                "drift.found",
                customer=self.snapshot.customer,
                invoice=self.invoice.id,
                kinds=sorted({line.kind for line in drifted}),
                lines=len(drifted),
            )
