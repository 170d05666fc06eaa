"""What a person sees: the front page, a bill that can be paid, and the customer's portal."""

from html import escape
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from sandbox.account import API_VERSION, Unit
from sandbox.defaults import Json
from sandbox.errors import StripeError
from sandbox.faults import ON_REQUEST, ON_WEBHOOK
from sandbox.guesses import GUESSES, MISSING, SIMULATED
from sandbox.shapes import shape
from sandbox.state import Record
from sandbox.world import World

STYLE: Final = """
:root{color-scheme:light dark;--ink:#1a1f36;--soft:#5b6478;--line:#dfe3ea;--paper:#fff;--back:#f5f7fa;--act:#4f46e5}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9f0;--soft:#98a1b3;--line:#2c3342;--paper:#171b24;--back:#0e1117;--act:#a5a2ff}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:44rem;margin:3rem auto;padding:2rem;background:var(--paper);border:1px solid var(--line);border-radius:12px}
@media(max-width:46rem){main{margin:0;border:0;border-radius:0;padding:1.25rem}}
h1{font-size:1.5rem;margin:0 0 .25rem}h2{font-size:1.05rem;margin:2rem 0 .5rem}p,li{color:var(--soft)}
a{color:var(--act)}code{font-size:.9em}table{width:100%;border-collapse:collapse;margin:1rem 0}
td,th{padding:.5rem .25rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
td:last-child,th:last-child{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
button{font:inherit;font-weight:600;padding:.7rem 1.4rem;border:0;border-radius:8px;background:var(--act);color:var(--paper);cursor:pointer}
button:focus-visible,a:focus-visible{outline:3px solid var(--act);outline-offset:2px}
.tag{display:inline-block;padding:.1rem .6rem;border:1px solid var(--line);border-radius:99px;font-size:.85rem;color:var(--soft)}
"""
ATTACH: Final = "POST /v1/payment_methods/{payment_method}/attach"
PAY: Final = "POST /v1/invoices/{invoice}/pay"
_NO_DECIMALS: Final = "bif clp djf gnf jpy kmf krw mga pyg rwf ugx vnd vuv xaf xof xpf"
NO_DECIMALS: Final = frozenset(_NO_DECIMALS.split())


def routes(world: World) -> list[Route]:
    """Return the pages over *world*."""
    pages = Pages(world)
    return [
        Route("/", pages.front),
        Route("/i/{invoice}", pages.bill),
        Route("/i/{invoice}/pay", pages.pay, methods=["POST"]),
        Route("/i/{invoice}/pdf", pages.pdf),
        Route("/p/session/{secret}", pages.portal),
        Route("/p/session/{secret}/card", pages.add_card, methods=["POST"]),
    ]


class Pages:
    """Request handlers; what a person does here has no idempotency key, as in Stripe's pages."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def front(self, _: Request) -> Response:
        """Say what this is."""
        return _page("Stripe sandbox", _front())

    async def bill(self, request: Request) -> Response:
        """Show an invoice."""
        unit = Unit(self.world.account)
        record = unit.find("invoices", request.path_params["invoice"])
        if record is None:
            return _page("No such invoice", "<h1>There is no such invoice</h1>", 404)
        return _page(f"Invoice {record.get('number', '')}", _bill(shape(unit, "invoices", record)))

    async def pay(self, request: Request) -> Response:
        """Pay an invoice with a card that works."""
        invoice = request.path_params["invoice"]
        unit = Unit(self.world.account, self.world.account.new_id("req_"))
        try:
            self.world.perform(unit, PAY, {"payment_method": "pm_card_visa"}, ids=[invoice])
        except StripeError as error:
            return _page("Not payable", f"<h1>{escape(str(error))}</h1>", error.status)
        unit.commit()
        return RedirectResponse(f"/i/{invoice}", 303)

    async def pdf(self, _: Request) -> Response:
        """Say that there is none."""
        return _page("No PDF", "<h1>PDFs are not simulated</h1><p>Stripe makes one here.</p>", 501)

    async def portal(self, request: Request) -> Response:
        """Show a customer's invoices and payment methods, while the link lives."""
        unit = Unit(self.world.account)
        session = _session(unit, request.path_params["secret"])
        if session is None:
            return _page("Expired", "<h1>This link has expired</h1><p>Ask for a new one.</p>", 404)
        return _page("Billing", _portal(unit, session))

    async def add_card(self, request: Request) -> Response:
        """Attach a test card and make it the default."""
        unit, secret = Unit(self.world.account), request.path_params["secret"]
        if session := _session(unit, secret):
            customer = session["customer"]
            attached = {"customer": customer}
            card = self.world.perform(unit, ATTACH, attached, ids=["pm_card_visa"])
            default = {"invoice_settings": {"default_payment_method": card["id"]}}
            self.world.perform(unit, "POST /v1/customers/{customer}", default, ids=[customer])
            unit.commit()
        return RedirectResponse(f"/p/session/{secret}", 303)


def money(amount: int, currency: str) -> str:
    """Write minor units for a person: ``-USD 1,234.50``."""
    sign, size = "-" if amount < 0 else "", abs(amount)
    if currency in NO_DECIMALS:
        return f"{sign}{currency.upper()} {size:,}"
    return f"{sign}{currency.upper()} {size // 100:,}.{size % 100:02}"


def _session(unit: Unit, secret: str) -> Record | None:
    sessions = unit.account.state.rows["portal_sessions"].values()
    live = (s for s in sessions if s["_secret"] == secret and s["_expires"] >= unit.now)
    return next(live, None)


def _page(title: str, body: str, status: int = 200) -> Response:
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    html = f'<!doctype html><html lang="en">{head}<style>{STYLE}</style><main>{body}<p><small>Stripe sandbox: a double, no real money.</small></p></main></html>'
    policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"
    return HTMLResponse(html, status, {"content-security-policy": policy})


def _front() -> str:
    faults = "".join(
        f"<tr><td><code>{kind}</code></td><td style='white-space:normal;text-align:left'>{escape(text)}</td></tr>"
        for kind, text in (ON_REQUEST | ON_WEBHOOK).items()
    )
    return (
        f"<h1>Stripe sandbox</h1><p>A local double of Stripe's API, version <code>{API_VERSION}</code>. "
        "It is not Stripe and not made by Stripe. Nothing here is real money; live keys are refused. "
        "The API is under <code>/v1</code>, its control path under <code>/_sandbox/</code>.</p>"
        f"<h2>Simulated</h2>{_list(SIMULATED)}<h2>Not simulated (answers 501, or is said here)</h2>"
        f"{_list(MISSING)}<h2>Guesses, to be confirmed at Stripe</h2>{_list(GUESSES)}"
        f"<h2>Faults on order</h2><table>{faults}</table>"
    )


def _list(items: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def _bill(invoice: Json) -> str:
    currency = invoice["currency"]
    rows = "".join(
        f"<tr><td>{escape(line['description'] or 'Item')}</td><td>{line['quantity_decimal']}</td>"
        f"<td>{money(line['amount'], currency)}</td></tr>"
        for line in invoice["lines"]["data"]
    )
    more = "<p>Only the first ten lines are shown.</p>" if invoice["lines"]["has_more"] else ""
    button = ""
    if invoice["status"] in ("open", "uncollectible"):
        due = money(invoice["amount_remaining"], currency)
        button = (
            f'<form method="post" action="/i/{invoice["id"]}/pay"><button>Pay {due}</button></form>'
        )
    return (
        f"<h1>Invoice {escape(invoice['number'] or '(draft)')}</h1>"
        f"<p>{escape(invoice['customer_name'] or invoice['customer'])} "
        f'<span class="tag">{invoice["status"]}</span></p>'
        f"<table><tr><th>Description</th><th>Quantity</th><th>Amount</th></tr>{rows}"
        f"<tr><th>Total</th><th></th><th>{money(invoice['total'], currency)}</th></tr>"
        f"<tr><th>Amount due</th><th></th><th>{money(invoice['amount_due'], currency)}</th></tr>"
        f"</table>{more}{button}"
    )


def _portal(unit: Unit, session: dict[str, Any]) -> str:
    state, customer = unit.account.state, unit.find("customers", session["customer"]) or {}
    shown = [
        shape(unit, "invoices", r) for r in state.newest_first("invoices", session["customer"])
    ]
    rows = "".join(
        f'<tr><td><a href="/i/{each["id"]}">{escape(each["number"])}</a></td>'
        f"<td>{each['status']}</td><td>{money(each['total'], each['currency'])}</td></tr>"
        for each in shown
        if each["number"]
    )
    methods = [
        f"{m['card']['brand']} •••• {m['card']['last4']}"
        for m in state.newest_first("payment_methods", session["customer"])
        if m.get("customer")
    ]
    back = escape(session.get("return_url") or "", quote=True)
    link = f'<p><a href="{back}">Return</a></p>' if back.startswith(("http://", "https://")) else ""
    name = escape(customer.get("name") or session["customer"])
    return (
        f"<h1>Billing for {name}</h1>{link}<h2>Payment methods</h2>"
        f"{_list(methods or ['None yet.'])}"
        f'<form method="post" action="/p/session/{session["_secret"]}/card">'
        "<button>Add a test card</button></form><h2>Invoices</h2>"
        f"<table><tr><th>Number</th><th>Status</th><th>Total</th></tr>{rows}</table>"
    )
