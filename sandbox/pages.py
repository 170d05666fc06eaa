"""What a person sees: the front page, a bill that can be paid, and the customer's portal."""

from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from sandbox.control import World
from sandbox.errors import StripeError
from sandbox.hostility import ON_REQUEST, ON_WEBHOOK
from sandbox.sdk import API_VERSION
from sandbox.shapes import shape

# Currencies without a minor unit.
WHOLE: Final = ("clp", "jpy", "krw", "vnd", "xaf", "xof", "xpf")
HERE: Final = Path(__file__).parent


class Pages:
    """The pages over *world*; what a person does in them has no idempotency key."""

    def __init__(self, world: World) -> None:
        self.world, self.account = world, world.account
        self.routes = [
            Route("/", self._front),
            Route("/i/{invoice}", self._bill),
            Route("/i/{invoice}/pay", self._pay, methods=["POST"]),
            Route("/p/session/{secret}", self._portal),
        ]

    async def _front(self, _: Request) -> Response:
        about = (HERE / "about.txt").read_text().replace("VERSION", API_VERSION)
        faults = [f"- {kind}: {text}" for kind, (text, _) in {**ON_REQUEST, **ON_WEBHOOK}.items()]
        text = "\n".join((about, "Faults on order", *faults))
        return _page("Stripe sandbox", 200, f"<pre>{escape(text)}</pre>")

    async def _bill(self, request: Request) -> Response:
        record = self.account.rows["invoices"].get(request.path_params["invoice"])
        if record is None:
            return _page("There is no such invoice", 404)
        bill = shape(self.account, "invoices", record)
        rows = [(bill["customer_name"] or bill["customer"], bill["status"], "")]
        for line in bill["lines"]["data"]:
            amount = money(line["amount"], bill["currency"])
            rows.append((line["description"] or "Item", line["quantity_decimal"], amount))
        sums = ("total", "amount_due", "amount_remaining")
        rows += [(each.replace("_", " "), "", money(bill[each], bill["currency"])) for each in sums]
        button = f'<form method="post" action="/i/{bill["id"]}/pay"><button>Pay</button></form>'
        body = _table(rows) + (button if bill["status"] in ("open", "uncollectible") else "")
        return _page(f"Invoice {bill['number'] or '(draft)'}", 200, body)

    async def _pay(self, request: Request) -> Response:
        invoice, card = request.path_params["invoice"], {"payment_method": "pm_card_visa"}
        try:
            self.world.perform("POST /v1/invoices/{invoice}/pay", card, invoice)
        except StripeError as error:
            return _page(str(error), error.status)
        return RedirectResponse(f"/i/{invoice}", 303)

    async def _portal(self, request: Request) -> Response:
        account, secret = self.account, request.path_params["secret"]
        for session in account.rows["sessions"].values():
            if session["bearer"] == secret and session["expires"] >= account.now:
                break
        else:
            return _page("This link has expired: ask for a new one", 404)
        customer = session["customer"]
        cards = [
            account.rows["payment_methods"][i] for i in account.of("payment_methods", customer)
        ]
        rows = [("Card", each["card"]["last4"], "") for each in cards]
        bills, links = [account.rows["invoices"][i] for i in account.of("invoices", customer)], ""
        for bill in [
            shape(account, "invoices", each) for each in bills if each["status"] != "draft"
        ]:
            rows.append((bill["number"], bill["status"], money(bill["total"], bill["currency"])))
            links += f'<p><a href="/i/{bill["id"]}">{escape(bill["number"])}</a>'
        name = account.rows["customers"].get(customer, {}).get("name") or customer
        return _page(f"Billing for {name}", 200, _table(rows) + links)


def money(amount: int, currency: str) -> str:
    """Write minor units for a person: ``-USD 1,234.50``."""
    size, sign = abs(amount), "-" if amount < 0 else ""
    figures = f"{size:,}" if currency in WHOLE else f"{size // 100:,}.{size % 100:02}"
    return f"{sign}{currency.upper()} {figures}"


def _table(rows: Iterable[tuple[Any, ...]]) -> str:
    cells = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows)
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"


def _page(title: str, status: int, body: str = "") -> Response:
    html = Template((HERE / "page.html").read_text()).substitute(title=escape(title), body=body)
    policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"
    return HTMLResponse(html, status, {"content-security-policy": policy})
