"""The writing part of a flush: stores a request batch, sends it, and commits the result."""

from dataclasses import dataclass, field, replace

import structlog

from billing.budget import Lane
from billing.errors import KeyExpired, OutcomeUnknown, StripeBusy, StripeRejected
from billing.invoicing import diff, metadata_keys
from billing.invoicing.remote_invoice import RemoteInvoice, has_all_lines
from billing.invoicing.request_batch import RequestBatch, RequestKind, StripeRequest
from billing.invoicing.snapshot import StripeLine
from billing.stripe import ApiResponse
from billing.usage import LineKey
from workers.flush.state import NOT_FOUND, REPLAN, FlushState

log = structlog.get_logger(__name__)

EDITS_IN_PLACE = (RequestKind.UPDATE_LINES, RequestKind.REMOVE_LINES)
IRREVOCABLE = (RequestKind.FINALIZE, RequestKind.DELETE)


@dataclass(slots=True)
class FlushExecution(FlushState):
    """A flush that writes.

    *prepared_here*: the batch was prepared under this lease, so a replayed response means that another
    worker has used its key. *rejections* are Stripe's, *write_intents* the cache generations with a
    write intent of ours.
    """

    prepared_here: bool = False
    rejections: list[StripeRejected] = field(default_factory=list)
    write_intents: set[str] = field(default_factory=set)

    @property
    def grace_ms(self) -> int:
        """For how long (ms) the draft that somebody edited is left as it is; 0 if a person requested the sync.

        A period that closes is not kept open by edits: its draft's grace ends at the latest one after the cut.
        """
        snapshot = self.snapshot
        if snapshot.edited_ms is None or self.lane in (Lane.CUSTOMER, Lane.SUPPORT):
            return 0
        since = min(snapshot.edited_ms, snapshot.closed_ms or snapshot.edited_ms)
        return max(0, since + self.context.policy.edit_grace_ms - snapshot.now_ms)

    async def prepare(self, batch: RequestBatch) -> bool:
        """Store *batch*; the next step sends it. False if it would finalize without a new adjustment."""
        if not await self.context.ledger.leases.prepare(self.lease, batch):
            return False
        self.snapshot = replace(self.snapshot, batch=batch)
        self.prepared_here = True
        return True

    async def execute(self) -> None:
        """Send the requests of the batch that are not done yet, then commit their result.

        A deletion that another worker prepared is discarded instead: the draft was found to be unneeded
        then, and a person may have used it since.
        """
        batch, self.reviewed = self._current_batch(), False
        changed = {self.snapshot.customer, *filter(None, [self.snapshot.invoice])}
        if new := changed - self.write_intents:  # `end_write` ends one intent of each
            await self.context.cache.begin_write(*sorted(new))
        self.write_intents |= changed
        response = None
        try:
            if self.prepared_here or not batch.deletes:
                response = await self._send_all(batch)
        except (StripeRejected, KeyExpired) as error:
            await self._record_rejection(error)
        if response is None:
            await self.discard_batch()
        else:
            await self._apply(batch, response)

    async def discard_batch(self) -> None:
        """Drop the batch and commit what Stripe shows; the next step plans again, under new keys.

        The dropped requests may still arrive, so the period is in doubt from now on.
        """
        batch = self._current_batch()
        creating = batch.requests[0].kind is RequestKind.CREATE
        self.invoice, self.other_invoices = None, None
        if self.snapshot.invoice is not None:
            await self.fetch_invoice()
        if self.snapshot.batch is not None:
            await self.commit(
                lines={} if self.invoice is None else self.invoice.lines_by_key,
                synced_to=REPLAN,
                generation=self.snapshot.invoice_generation + creating,
                in_doubt=True,
            )

    def _current_batch(self) -> RequestBatch:
        if self.snapshot.batch is None:
            raise RuntimeError("no request batch is prepared")
        return self.snapshot.batch

    async def _send_all(self, batch: RequestBatch) -> ApiResponse | None:
        """Return the last response; None if another worker turns out to have used a key."""
        response = None
        for index, request in enumerate(batch.requests):
            if request.done:
                continue
            response = await self._send(batch, request)
            if response.replayed and self.prepared_here:
                key = request.idempotency_key
                log.warning("flush.key_already_used", customer=self.snapshot.customer, key=key)
                return None
            self.stats.add(request)
            if request is not batch.requests[-1]:
                await self.context.ledger.leases.mark_request_done(self.lease, index)
        return response

    async def _send(self, batch: RequestBatch, request: StripeRequest) -> ApiResponse:
        await self._renew_lease()
        expires_ms = batch.prepared_ms + self._max_age_ms(request)
        not_after = self.started_at + (expires_ms - self.snapshot.now_ms) / 1000
        self.stats.calls += 1
        try:
            return await self.context.stripe.send(request, lane=self.lane, not_after=not_after)
        except OutcomeUnknown:
            await self.context.ledger.leases.mark_in_doubt(self.lease)
            raise
        except KeyExpired as error:
            if self.snapshot.now_ms <= expires_ms:
                # Only this worker froze; another may still send the request in time.
                raise StripeBusy(
                    "This worker stood still for too long; nothing was sent."
                ) from error
            raise
        except StripeRejected as error:
            if request.kind is RequestKind.DELETE and error.status == NOT_FOUND:
                deleted = request.path.rpartition("/")[2]
                return ApiResponse({"id": deleted}, False, error.request_id)
            raise

    def _max_age_ms(self, request: StripeRequest) -> int:
        """Return how long after its preparation (ms) a request may be sent; shorter if it is final.

        The client checks the clock when the first byte leaves, so a worker that froze sends nothing.
        """
        policy = self.context.policy
        return policy.finalize_ttl_ms if request.kind in IRREVOCABLE else policy.key_ttl_ms

    async def _record_rejection(self, error: StripeRejected | KeyExpired) -> None:
        """Remember Stripe's rejection; after one of a price, plan with the prices that Stripe has now."""
        if isinstance(error, StripeRejected):
            self.rejections.append(error)
            if "pric" in (error.param or ""):  # `lines[0][pricing][price]` or a part of it
                await self.context.price_catalog.expire()
        log.warning("flush.rejected", customer=self.snapshot.customer, error=type(error).__name__)

    async def _apply(self, batch: RequestBatch, response: ApiResponse) -> None:
        kind = batch.requests[-1].kind
        if kind is RequestKind.CREATE:
            self.invoice = None if response.replayed else RemoteInvoice.from_stripe(response.body)
            await self.commit(lines={}, invoice=response.body["id"])
        elif kind is RequestKind.DELETE:
            await self._apply_deletion(response.body["id"])
        else:
            await self._apply_edit(batch, response)

    async def _apply_deletion(self, deleted: str) -> None:
        if deleted == self.snapshot.invoice:
            self.invoice = None
            generation = self.snapshot.invoice_generation + 1
            await self.commit(lines={}, invoice="", generation=generation)
        else:
            others = self.other_invoices or ()
            self.other_invoices = tuple(invoice for invoice in others if invoice.id != deleted)
            await self.commit(lines=self.snapshot.lines)

    async def _apply_edit(self, batch: RequestBatch, response: ApiResponse) -> None:
        """Compare Stripe's lines with the batch's expected lines; a difference is planned again."""
        if self.invoice is None and self._outcome_is_certain(batch, response):
            await self.commit(
                lines=self._lines_after(batch), synced_to=(batch.version, batch.verify)
            )
            return
        if response.replayed:
            await self.fetch_invoice()
        else:
            self.invoice = await self.with_all_lines(response.body, self._invoice_after(batch))
        if self.invoice is None:
            return  # it was deleted, and that is committed
        reached = (self.invoice.seq, self.invoice.version) == (batch.seq, batch.version)
        finalizing = batch.requests[-1].kind is RequestKind.FINALIZE
        differs = diff.diff_lines(batch.expected_lines, self.invoice.own_lines)
        agrees = (reached or finalizing) and not differs
        synced_to = (batch.version, batch.verify) if agrees else REPLAN
        await self.commit(lines=self.invoice.lines_by_key, synced_to=synced_to)

    def _outcome_is_certain(self, batch: RequestBatch, response: ApiResponse) -> bool:
        """Return True if no fetch is needed: the response has our metadata, and the lines kept their ids.

        Stripe embeds ten lines in a response; reads are limited, writes are not.
        """
        metadata = response.body.get("metadata") or {}
        written = (metadata.get(metadata_keys.SEQ), metadata.get(metadata_keys.VERSION))
        reached = written == (str(batch.seq), batch.version)
        in_place = all(request.kind in EDITS_IN_PLACE for request in batch.requests)
        partial = not has_all_lines(response.body)
        return partial and reached and self.prepared_here and not response.replayed and in_place

    def _invoice_after(self, batch: RequestBatch) -> RemoteInvoice | None:
        """Return the fetched invoice as *batch* changes it; None if that adds lines, whose ids are unknown."""
        adds = any(request.kind is RequestKind.ADD_LINES for request in batch.requests)
        return None if self.invoice is None or adds else self.invoice.with_changes(batch)

    def _lines_after(self, batch: RequestBatch) -> dict[LineKey, StripeLine]:
        before = self.snapshot.lines
        return {
            key: replace(before[key], quantity=line.quantity, price=line.price, amount=line.amount)
            for key, line in batch.expected_lines.items()
        }
