"""The Stripe loaders: few reads when cold, none when warm, and the statistics of both."""

import asyncio
from dataclasses import dataclass, replace

import httpx
import pytest

from billing.budget import Lane
from billing.cache import entries, open_cache
from billing.cache.local_cache import Source
from billing.change_feed import Change, ChangeReason
from billing.errors import ErrorCode, Refused, Unavailable
from billing.pagination import Page, PageRequest
from billing.services import Services
from billing.usage import Period
from resolvers.dataloaders.stripe import Loaders
from tests.support.stripe_catalog import Shop
from tests.support.stripe_sandbox import StripeSandbox

INVOICES, LINES = 3, 12


@dataclass
class Account:
    """A customer with a card and some invoices of more lines than Stripe embeds."""

    services: Services
    sandbox: StripeSandbox
    customer: str
    card: str
    invoices: list[str]

    async def panel(self, services: Services | None = None) -> Loaders:
        """Load the data of a panel page; returns the loaders."""
        loaders = Loaders(services or self.services)
        loaders.with_cards = True

        async def some_lines() -> None:
            page = await loaders.invoices(self.customer, PageRequest(20))
            ids = [invoice.value.id for invoice in page.items]
            await asyncio.gather(*(loaders.lines(id_, PageRequest(5)) for id_ in ids))

        async def customer() -> None:
            await loaders.customer(self.customer)
            await loaders.default_payment_method(self.customer)

        await asyncio.gather(
            customer(),
            loaders.payment_methods(self.customer, PageRequest(10)),
            loaders.snapshot(self.customer),
            loaders.last_sync(self.customer),
            some_lines(),
        )
        return loaders

    async def reads(self) -> int:
        """Number of Stripe reads since the account was created."""
        return int((await self.sandbox.counters())["reads"])


@pytest.fixture
async def account(services: Services, sandbox: StripeSandbox) -> Account:
    """An account, with Stripe's counters reset."""
    shop = Shop(services)
    customer = await shop.customer()

    async def write(path: str, **params: object) -> str:
        key = f"{path} {len(invoices)}"
        return str(
            (await services.stripe.write(path, params, key=key, lane=Lane.CUSTOMER)).body["id"]
        )

    invoices: list[str] = []
    card = await write("/v1/payment_methods/pm_card_visa/attach", customer=customer)
    default = {"default_payment_method": card}
    await write(f"/v1/customers/{customer}", invoice_settings=default)
    for _ in range(INVOICES):
        invoice = await write("/v1/invoices", customer=customer)
        lines = [{"amount": 100 + number, "description": f"{number}"} for number in range(LINES)]
        await write(f"/v1/invoices/{invoice}/add_lines", lines=lines)
        invoices.insert(0, invoice)
    await sandbox.reset_counters()
    return Account(services, sandbox, customer, card, invoices)


async def test_cards_are_expanded_only_if_selected(account: Account) -> None:
    """A card costs a customer's read nothing more, and a list of customers one read instead of twenty."""
    without_cards, with_cards = Loaders(account.services), Loaders(account.services)
    with_cards.with_cards = True
    for loaders in (without_cards, with_cards, with_cards):
        page = await loaders.customers(PageRequest(5))
        assert [loaded.value.id for loaded in page.items] == [account.customer]
        card = await loaders.default_payment_method(account.customer)
        assert card is not None
        assert card.value.id == account.card
    assert (without_cards.stats.stripe_calls, with_cards.stats.stripe_calls) == (2, 1)
    found = await without_cards.customer(account.customer)
    assert found is not None
    assert found.value.id == account.customer
    assert without_cards.stats.stripe_calls == 3


async def test_cold_panel_takes_three_reads_and_warm_one_none(account: Account) -> None:
    """The customer with its card, the invoices with their lines, the payment methods."""
    cold, warm = await account.panel(), await account.panel()
    assert await account.reads() == cold.stats.stripe_calls == cold.stats.cache_misses == 3
    assert (warm.stats.stripe_calls, warm.stats.cache_misses, warm.stats.stale) == (0, 0, 0)
    assert warm.stats.cache_hits == 3 + INVOICES


async def test_concurrent_cold_panels_share_their_reads(account: Account) -> None:
    """Every customer opens the panel when the e-mail with the invoice arrives."""
    crowd = await asyncio.gather(*(account.panel() for _ in range(40)))
    assert await account.reads() == sum(loaders.stats.stripe_calls for loaders in crowd) == 3


async def test_forward_pages_are_contiguous(account: Account) -> None:
    """A cursor is an id, and Stripe continues after it."""
    loaders = Loaders(account.services)
    first = await loaders.invoices(account.customer, PageRequest(2))
    end = first.items[-1].value.id
    last = await loaders.invoices(account.customer, PageRequest(2, end))
    assert [loaded.value.id for loaded in (*first.items, *last.items)] == account.invoices
    assert (first.has_more, last.has_more) == (True, False)
    drafts = await loaders.invoices(account.customer, PageRequest(1), "draft")
    paid = await loaders.invoices(account.customer, PageRequest(1), "paid")
    assert (len(drafts.items), len(paid.items)) == (1, 0)


async def test_backward_pages_are_contiguous(account: Account) -> None:
    """The entries before a cursor, in the same order, and if there are more before them."""
    loaders = Loaders(account.services)
    whole = await loaders.invoices(account.customer, PageRequest(INVOICES))
    last = whole.items[-1].value.id
    for size, more in ((1, True), (2, False)):
        request = PageRequest(size, before=last)
        page = await loaders.invoices(account.customer, request)
        assert [loaded.value.id for loaded in page.items] == account.invoices[-1 - size : -1]
        assert page.has_more is more
    lines = await loaders.lines(last, PageRequest(100))
    back = await loaders.lines(last, PageRequest(5, before=lines.items[-1].id))
    assert back == Page(lines.items[-6:-1], has_more=True)
    with pytest.raises(Refused, match="`before`"):
        await loaders.invoices(account.customer, PageRequest(1, before="in_absent"))


async def test_lines_beyond_the_embedded_ones_are_read(account: Account) -> None:
    """Stripe embeds ten; a month of usage has more."""
    loaders = Loaders(account.services)
    invoice = account.invoices[0]
    embedded = await loaders.lines(invoice, PageRequest(4))
    assert (len(embedded.items), embedded.has_more, loaders.stats.stripe_calls) == (4, True, 1)
    whole = await loaders.lines(invoice, PageRequest(100))
    assert [line.amount for line in whole.items] == [100 + number for number in range(LINES)]
    assert (whole.has_more, loaders.stats.stripe_calls) == (False, 2)
    rest = await loaders.lines(invoice, PageRequest(100, embedded.items[-1].id))
    assert rest.items == whole.items[4:]


async def test_embedded_lines_cause_no_read(account: Account) -> None:
    """Pages within the ten embedded lines cost nothing, in both directions."""
    loaders = Loaders(account.services)
    first = await loaders.lines(account.invoices[0], PageRequest(4))
    second = await loaders.lines(account.invoices[0], PageRequest(4, first.items[-1].id))
    back = PageRequest(3, before=second.items[0].id)
    before = await loaders.lines(account.invoices[0], back)
    assert [line.amount for line in second.items] == [104, 105, 106, 107]
    assert before == Page(first.items[1:], has_more=True)
    assert loaders.stats.stripe_calls == 1


async def test_invoice_heads_do_not_fill_invoices(account: Account) -> None:
    """Sixty months of lines would take more of the cache than everything else on a page."""
    loaders = Loaders(account.services)
    heads = await loaders.invoice_heads(account.customer, PageRequest(100))
    assert [head.id for head in heads.items] == account.invoices
    assert (await loaders.lines(account.invoices[0], PageRequest(1))).items
    assert loaders.stats.stripe_calls == 2


async def test_empty_page_causes_no_read(account: Account) -> None:
    """`first: 0` requests nothing."""
    loaders = Loaders(account.services)
    assert not (await loaders.invoices(account.customer, PageRequest(0))).items
    assert not (await loaders.payment_methods(account.customer, PageRequest(0))).items
    assert not (await loaders.customers(PageRequest(0))).items
    assert not (await loaders.lines("in_1", PageRequest(0, "il_1"))).items
    assert await account.reads() == 0


async def test_unknown_cursor_is_refused(account: Account) -> None:
    """Stripe's own error would blame the gateway."""
    loaders = Loaders(account.services)
    with pytest.raises(Refused, match="first page") as refused:
        await loaders.invoices(account.customer, PageRequest(2, "in_absent"))
    assert (refused.value.code, refused.value.path) == (ErrorCode.INVALID_INPUT, ("after",))


async def test_absent_objects_are_none(account: Account) -> None:
    """And cost one read, however often they are loaded."""
    for _ in range(2):
        loaders = Loaders(account.services)
        loaders.with_cards = True
        assert await loaders.customer("cus_none") is None
        assert await loaders.default_payment_method("cus_none") is None
        assert await loaders.invoice("in_none") is None
        assert (await loaders.lines("in_none", PageRequest(5))).items == ()
    assert await account.reads() == 2


async def test_deleted_customer_is_none(account: Account) -> None:
    """Stripe still returns its id."""
    async with httpx.AsyncClient(base_url=account.sandbox.url, trust_env=False) as http:
        path, key = f"/v1/customers/{account.customer}", account.services.settings.stripe_api_key
        response = await http.delete(path, auth=(key.get_secret_value(), ""))
    assert response.json()["deleted"]
    loaders = Loaders(account.services)
    assert await loaders.customer(account.customer) is None
    assert await loaders.default_payment_method(account.customer) is None


async def test_customers_are_filtered_by_email(account: Account) -> None:
    """A support ticket has an e-mail address."""
    loaders = Loaders(account.services, Lane.SUPPORT)
    found = await loaders.customers(PageRequest(10), "billing@acme.example")
    none = await loaders.customers(PageRequest(10), "nobody@acme.example")
    assert [loaded.value.id for loaded in found.items] == [account.customer]
    assert none.items == ()


async def test_payment_method_is_read_by_id(account: Account) -> None:
    """Support pastes `pm_…` from an e-mail of Stripe's."""
    loaders = Loaders(account.services)
    found = await loaders.payment_method(account.card)
    assert found is not None
    assert (found.value.last4, found.value.customer) == ("4242", account.customer)
    assert found.source is Source.STRIPE
    assert await loaders.payment_method("pm_none") is None
    assert loaders.stats.stripe_calls == 2
    assert not loaders.dependencies.cacheable


async def test_stale_invoice_has_no_expiring_urls(
    account: Account,
) -> None:
    """Payment URLs are never served stale; an object that was never read is an error of its field alone."""
    services, invoice = account.services, account.invoices[0]
    await account.sandbox.dashboard("finalize", invoice)
    first = await Loaders(services).invoice(invoice)
    assert first is not None
    assert first.value.hosted_invoice_url

    await services.cache.invalidate(invoice, account.customer)
    await account.sandbox.fault("error_500_before", times=10)
    loaders = Loaders(services)
    stale = await loaders.invoice(invoice)
    assert stale is not None
    assert (stale.source, stale.fetched_at) == (Source.STALE, first.fetched_at)
    assert (stale.value.total, stale.value.hosted_invoice_url) == (first.value.total, None)
    with pytest.raises(Unavailable, match="Stripe"):
        await loaders.customer(account.customer)
    assert loaders.stats.stale == 1
    assert not loaders.dependencies.cacheable


async def test_dependencies_name_every_generation(account: Account) -> None:
    """Every generation under which it was read, the ledger's included."""
    await account.panel()
    loaders = await account.panel()
    names = {account.customer, f"usage:{account.customer}", *account.invoices, entries.ANY_CUSTOMER}
    assert set(loaders.dependencies.generations) == names
    assert (loaders.dependencies.cacheable, loaders.dependencies.includes_ledger) == (True, True)
    before = await account.services.cache.generations(*sorted(names))
    assert before == tuple(loaders.dependencies.generations[name] for name in sorted(names))

    await account.services.change_feed.publish(Change(account.customer, ChangeReason.SYNC))
    after = await account.services.cache.generations(*sorted(names))
    assert [one != other for one, other in zip(after, before, strict=True)].count(True) == 1


async def test_operation_that_read_two_states_is_not_cacheable(account: Account) -> None:
    """After a change between two reads, the response is valid for its client but not for others."""
    loaders = Loaders(account.services)
    await loaders.customer(account.customer)
    assert loaders.dependencies.cacheable
    await account.services.cache.invalidate(account.customer)
    await loaders.payment_methods(account.customer, PageRequest(10))
    assert not loaders.dependencies.cacheable


async def test_ledger_loaders_do_not_call_stripe(account: Account) -> None:
    """Usage is shown while Stripe is unavailable."""
    loaders = Loaders(account.services)
    now = Period.containing((await loaders.snapshot(account.customer)).period.start)
    assert (await loaders.period(account.customer, now)).totals == {}
    assert await loaders.breakdown(account.customer, now, "app") == {}
    assert await loaders.hold(account.customer) is None
    assert await loaders.sync("sync_1_1") is None
    assert not loaders.dependencies.cacheable  # clients poll a sync that they read by id
    assert await account.reads() == 0


async def test_panel_loads_without_cache_server(account: Account) -> None:
    """Slower: every load goes to Stripe, and the response is not cacheable."""
    async with open_cache("redis://127.0.0.1:1") as unavailable:
        loaders = await account.panel(replace(account.services, cache=unavailable))
    assert loaders.stats.cache_hits == 0
    assert loaders.stats.stripe_calls == 3
    assert not loaders.dependencies.cacheable
