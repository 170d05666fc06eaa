"""What an operation reads: few calls when cold, none when warm, and it says what each answer cost."""

import asyncio
from dataclasses import dataclass, replace

import httpx
import pytest

from billing.budget import Lane
from billing.cache import entries, open_cache
from billing.cache.local_cache import Source
from billing.change_feed import Change, ChangeReason
from billing.errors import ErrorCode, Refused, Unavailable
from billing.pagination import Page, Window
from billing.services import Services
from billing.usage import Period
from resolvers.dataloaders.stripe import Customers, InvoicesOf, Loaders, PageOf
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
        """Load what a panel page shows; the loaders that did it."""
        loaders = Loaders(services or self.services)
        loaders.with_cards = True

        async def some_lines() -> None:
            page = await loaders.invoices.load(InvoicesOf(self.customer, Window(20)))
            keys = [PageOf(each.value.id, Window(5)) for each in page.items]
            await asyncio.gather(*map(loaders.lines.load, keys))

        async def customer() -> None:
            await loaders.customer.load(self.customer)
            await loaders.default_payment_method.load(self.customer)

        await asyncio.gather(
            customer(),
            loaders.payment_methods.load(PageOf(self.customer, Window(10))),
            loaders.snapshot.load(self.customer),
            loaders.last_sync.load(self.customer),
            some_lines(),
        )
        return loaders

    async def reads(self) -> int:
        """How often Stripe was read since the account was made."""
        return int((await self.sandbox.counters())["reads"])


@pytest.fixture
async def account(services: Services, sandbox: StripeSandbox) -> Account:
    """An account, and Stripe's counters at zero."""
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


async def test_only_what_is_asked_for_comes_along(account: Account) -> None:
    """A card costs a customer's read nothing more, and a list of customers one read instead of twenty."""
    plain, carded = Loaders(account.services), Loaders(account.services)
    carded.with_cards = True
    for loaders in (plain, carded, carded):
        page = await loaders.customers.load(Customers(Window(5)))
        assert [each.value.id for each in page.items] == [account.customer]
        card = await loaders.default_payment_method.load(account.customer)
        assert card is not None
        assert card.value.id == account.card
    assert (plain.cost.stripe_calls, carded.cost.stripe_calls) == (2, 1)
    found = await plain.customer.load(account.customer)
    assert found is not None
    assert found.value.id == account.customer
    assert plain.cost.stripe_calls == 3


async def test_a_cold_panel_costs_at_most_four_reads_and_a_warm_one_none(account: Account) -> None:
    """The customer with its card, the invoices with their lines, the payment methods."""
    cold, warm = await account.panel(), await account.panel()
    assert await account.reads() == cold.cost.stripe_calls == cold.cost.cache_misses == 3
    assert (warm.cost.stripe_calls, warm.cost.cache_misses, warm.cost.stale) == (0, 0, 0)
    assert warm.cost.cache_hits == 3 + INVOICES


async def test_a_crowd_of_cold_panels_costs_the_reads_of_one(account: Account) -> None:
    """Everybody opens the panel when the e-mail with the invoice arrives."""
    crowd = await asyncio.gather(*(account.panel() for _ in range(40)))
    assert await account.reads() == sum(each.cost.stripe_calls for each in crowd) == 3


async def test_pages_follow_each_other_without_gap_or_overlap(account: Account) -> None:
    """A cursor is an id, and Stripe goes on after it."""
    loaders = Loaders(account.services)
    first = await loaders.invoices.load(InvoicesOf(account.customer, Window(2)))
    end = first.items[-1].value.id
    last = await loaders.invoices.load(InvoicesOf(account.customer, Window(2, end)))
    assert [each.value.id for each in (*first.items, *last.items)] == account.invoices
    assert (first.has_more, last.has_more) == (True, False)
    drafts = await loaders.invoices.load(InvoicesOf(account.customer, Window(1), "draft"))
    paid = await loaders.invoices.load(InvoicesOf(account.customer, Window(1), "paid"))
    assert (len(drafts.items), len(paid.items)) == (1, 0)


async def test_pages_are_turned_back(account: Account) -> None:
    """What came before a cursor, in the same order, and whether there is more before it."""
    loaders = Loaders(account.services)
    whole = await loaders.invoices.load(InvoicesOf(account.customer, Window(INVOICES)))
    last = whole.items[-1].value.id
    for size, more in ((1, True), (2, False)):
        window = Window(size, before=last)
        page = await loaders.invoices.load(InvoicesOf(account.customer, window))
        assert [each.value.id for each in page.items] == account.invoices[-1 - size : -1]
        assert page.has_more is more
    lines = await loaders.lines.load(PageOf(last, Window(100)))
    back = await loaders.lines.load(PageOf(last, Window(5, before=lines.items[-1].id)))
    assert back == Page(lines.items[-6:-1], has_more=True)
    with pytest.raises(Refused, match="`before`"):
        await loaders.invoices.load(InvoicesOf(account.customer, Window(1, before="in_gone")))


async def test_lines_beyond_those_that_come_along_are_read(account: Account) -> None:
    """Stripe embeds ten; a month of usage has more."""
    loaders = Loaders(account.services)
    invoice = account.invoices[0]
    embedded = await loaders.lines.load(PageOf(invoice, Window(4)))
    assert (len(embedded.items), embedded.has_more, loaders.cost.stripe_calls) == (4, True, 1)
    whole = await loaders.lines.load(PageOf(invoice, Window(100)))
    assert [each.amount for each in whole.items] == [100 + number for number in range(LINES)]
    assert (whole.has_more, loaders.cost.stripe_calls) == (False, 2)
    rest = await loaders.lines.load(PageOf(invoice, Window(100, embedded.items[-1].id)))
    assert rest.items == whole.items[4:]


async def test_lines_that_came_along_are_not_asked_for_again(account: Account) -> None:
    """Pages within the ten that Stripe embeds cost nothing, whichever way they are turned."""
    loaders = Loaders(account.services)
    first = await loaders.lines.load(PageOf(account.invoices[0], Window(4)))
    second = await loaders.lines.load(PageOf(account.invoices[0], Window(4, first.items[-1].id)))
    back = Window(3, before=second.items[0].id)
    before = await loaders.lines.load(PageOf(account.invoices[0], back))
    assert [each.amount for each in second.items] == [104, 105, 106, 107]
    assert before == Page(first.items[1:], has_more=True)
    assert loaders.cost.stripe_calls == 1


async def test_years_of_bills_are_added_up_without_their_lines(account: Account) -> None:
    """Sixty months of lines would take more of the cache than all else that a page shows."""
    loaders = Loaders(account.services)
    heads = await loaders.invoice_heads.load(PageOf(account.customer, Window(100)))
    assert [each.id for each in heads.items] == account.invoices
    assert (await loaders.lines.load(PageOf(account.invoices[0], Window(1)))).items
    assert loaders.cost.stripe_calls == 2


async def test_an_empty_page_costs_no_call(account: Account) -> None:
    """`first: 0` is a question about nothing."""
    loaders = Loaders(account.services)
    assert not (await loaders.invoices.load(InvoicesOf(account.customer, Window(0)))).items
    assert not (await loaders.payment_methods.load(PageOf(account.customer, Window(0)))).items
    assert not (await loaders.customers.load(Customers(Window(0)))).items
    assert not (await loaders.lines.load(PageOf("in_1", Window(0, "il_1")))).items
    assert await account.reads() == 0


async def test_a_cursor_of_something_deleted_is_refused_with_the_cure(account: Account) -> None:
    """Stripe's error would blame the gateway."""
    loaders = Loaders(account.services)
    with pytest.raises(Refused, match="first page") as refused:
        await loaders.invoices.load(InvoicesOf(account.customer, Window(2, "in_gone")))
    assert (refused.value.code, refused.value.path) == (ErrorCode.INVALID_INPUT, ("after",))


async def test_what_stripe_does_not_know_is_none(account: Account) -> None:
    """And costs one call, however often it is asked for."""
    for _ in range(2):
        loaders = Loaders(account.services)
        loaders.with_cards = True
        assert await loaders.customer.load("cus_none") is None
        assert await loaders.default_payment_method.load("cus_none") is None
        assert await loaders.invoice.load("in_none") is None
        assert (await loaders.lines.load(PageOf("in_none", Window(5)))).items == ()
    assert await account.reads() == 2


async def test_a_deleted_customer_is_none(account: Account) -> None:
    """Stripe still answers with its id."""
    async with httpx.AsyncClient(base_url=account.sandbox.url, trust_env=False) as http:
        path, key = f"/v1/customers/{account.customer}", account.services.settings.stripe_api_key
        answer = await http.delete(path, auth=(key.get_secret_value(), ""))
    assert answer.json()["deleted"]
    loaders = Loaders(account.services)
    assert await loaders.customer.load(account.customer) is None
    assert await loaders.default_payment_method.load(account.customer) is None


async def test_support_finds_customers_by_email(account: Account) -> None:
    """A ticket comes from an address."""
    loaders = Loaders(account.services, Lane.SUPPORT)
    found = await loaders.customers.load(Customers(Window(10), "billing@acme.example"))
    none = await loaders.customers.load(Customers(Window(10), "nobody@acme.example"))
    assert [each.value.id for each in found.items] == [account.customer]
    assert none.items == ()


async def test_a_payment_method_is_found_by_its_id(account: Account) -> None:
    """A person pastes `pm_…` out of an e-mail of Stripe's."""
    loaders = Loaders(account.services)
    found = await loaders.payment_method.load(account.card)
    assert found is not None
    assert (found.value.last4, found.value.customer) == ("4242", account.customer)
    assert found.source is Source.STRIPE
    assert await loaders.payment_method.load("pm_none") is None
    assert loaders.cost.stripe_calls == 2
    assert not loaders.footprint.sound


async def test_while_stripe_is_down_a_panel_says_stale_and_hides_what_expires(
    account: Account,
) -> None:
    """Links to pay are never served old; what was never read is an error of that field alone."""
    services, invoice = account.services, account.invoices[0]
    await account.sandbox.dashboard("finalize", invoice)
    first = await Loaders(services).invoice.load(invoice)
    assert first is not None
    assert first.value.hosted_invoice_url

    await services.cache.forget(invoice, account.customer)
    await account.sandbox.fault("error_500_before", times=10)
    loaders = Loaders(services)
    stale = await loaders.invoice.load(invoice)
    assert stale is not None
    assert (stale.source, stale.fetched_at) == (Source.STALE, first.fetched_at)
    assert (stale.value.total, stale.value.hosted_invoice_url) == (first.value.total, None)
    with pytest.raises(Unavailable, match="Stripe"):
        await loaders.customer.load(account.customer)
    assert loaders.cost.stale == 1
    assert not loaders.footprint.sound


async def test_an_answer_knows_what_it_depends_on(account: Account) -> None:
    """Every generation that it was read under, the ledger's among them."""
    await account.panel()
    loaders = await account.panel()
    names = {account.customer, f"usage:{account.customer}", *account.invoices, entries.ANYBODY}
    assert set(loaders.footprint.generations) == names
    assert (loaders.footprint.sound, loaders.footprint.ledger) == (True, True)
    standing = await account.services.cache.generations(*sorted(names))
    assert standing == tuple(loaders.footprint.generations[name] for name in sorted(names))

    await account.services.changes.publish(Change(account.customer, ChangeReason.SYNC))
    moved = await account.services.cache.generations(*sorted(names))
    assert [one != other for one, other in zip(moved, standing, strict=True)].count(True) == 1


async def test_an_operation_that_saw_two_states_is_not_sound(account: Account) -> None:
    """A change between two of its reads: right for who asked before it, of no use to others."""
    loaders = Loaders(account.services)
    await loaders.customer.load(account.customer)
    assert loaders.footprint.sound
    await account.services.cache.forget(account.customer)
    await loaders.payment_methods.load(PageOf(account.customer, Window(10)))
    assert not loaders.footprint.sound


async def test_the_ledger_is_read_without_stripe(account: Account) -> None:
    """Usage shows while Stripe cannot be reached."""
    loaders = Loaders(account.services)
    now = Period.containing((await loaders.snapshot.load(account.customer)).period.start)
    assert (await loaders.period.load((account.customer, now))).totals == {}
    assert await loaders.breakdown.load((account.customer, now, "app")) == {}
    assert await loaders.hold.load(account.customer) is None
    assert await loaders.sync.load("sync_1_1") is None
    assert not loaders.footprint.sound  # a sync asked for by its id is being watched
    assert await account.reads() == 0


async def test_without_the_cache_server_a_panel_is_whole(account: Account) -> None:
    """Slower: every load goes to Stripe; and nobody keeps the answer."""
    async with open_cache("redis://127.0.0.1:1") as gone:
        loaders = await account.panel(replace(account.services, cache=gone))
    assert loaders.cost.cache_hits == 0
    assert loaders.cost.stripe_calls == 3
    assert not loaders.footprint.sound
