"""HTML pages: the front page, an invoice with a pay button, and the customer portal."""

from collections.abc import Iterable
from decimal import Decimal
from html import escape
from pathlib import Path
from string import Template
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from sandbox.admin import Sandbox
from sandbox.faults import REQUEST_FAULTS, WEBHOOK_FAULTS
from sandbox.sdk import API_VERSION
from sandbox.totals import compute

# The currencies that have other than two decimals.
DECIMALS: Final = {
    "bif": 0, "clp": 0, "djf": 0, "gnf": 0, "jpy": 0, "kmf": 0, "krw": 0, "mga": 0, "pyg": 0, "rwf": 0,
    "vnd": 0, "vuv": 0, "xaf": 0, "xof": 0, "xpf": 0, "bhd": 3, "jod": 3, "kwd": 3, "omr": 3, "tnd": 3,
}  # fmt: skip
HERE: Final = Path(__file__).parent


def routes(sandbox: Sandbox) -> list[Route]:
    """Return the pages of *sandbox*; actions taken in them have no idempotency key."""
    account = sandbox.account

    async def front(_: Request) -> Response:
        about = (HERE / "about.txt").read_text().replace("VERSION", API_VERSION)
        faults = [
            f"- {kind}: {text}" for kind, (text, _) in {**REQUEST_FAULTS, **WEBHOOK_FAULTS}.items()
        ]
        text = "\n".join((about, "Faults on order", *faults))
        return _page("Stripe sandbox", f"<pre>{escape(text)}</pre>")

    async def bill(request: Request) -> Response:
        shown = sandbox.perform("GET /v1/invoices/{invoice}", {}, request.path_params["invoice"])
        rows = [(shown["customer_name"] or shown["customer"], shown["status"], "")]
        for line in shown["lines"]["data"]:
            amount = _money(line["amount"], shown["currency"])
            rows.append((line["description"] or "Item", line["quantity_decimal"], amount))
        sums = [("Total", "total"), ("Due", "amount_due"), ("Remaining", "amount_remaining")]
        rows += [(word, "", _money(shown[name], shown["currency"])) for word, name in sums]
        button = f'<form method="post" action="/i/{shown["id"]}/pay"><button>Pay</button></form>'
        body = _table(rows) + (button if shown["status"] in ("open", "uncollectible") else "")
        return _page(f"Invoice {shown['number'] or '(draft)'}", body)

    async def pay(request: Request) -> Response:
        invoice, card = request.path_params["invoice"], {"payment_method": "pm_card_visa"}
        sandbox.perform("POST /v1/invoices/{invoice}/pay", card, invoice)
        return RedirectResponse(f"/i/{invoice}", 303)

    async def portal(request: Request) -> Response:
        secret = request.path_params["secret"]
        sessions = [row for row in account.rows["sessions"].values() if row["bearer"] == secret]
        if not sessions or sessions[0]["expires"] < account.now:
            return _page("This link has expired: ask for a new one", status=404)
        customer = sessions[0]["customer"]
        cards = account.owned_by("payment_methods", customer).values()
        rows, links = [("Card", card["card"]["last4"], "") for card in cards], ""
        for invoice in account.owned_by("invoices", customer).values():
            if invoice["status"] != "draft":
                amount = _money(compute(sandbox.account, invoice).total, invoice["currency"])
                rows.append((invoice["number"], invoice["status"], amount))
                links += f'<p><a href="/i/{invoice["id"]}">{escape(invoice["number"])}</a>'
        name = account.rows["customers"].get(customer, {}).get("name") or customer
        return _page(f"Billing for {name}", _table(rows) + links)

    return [
        Route("/", front),
        Route("/i/{invoice}", bill),
        Route("/i/{invoice}/pay", pay, methods=["POST"]),
        Route("/p/session/{secret}", portal),
    ]


async def error_page(_: Request, error: Exception) -> Response:
    """Show a StripeError as a page."""
    return _page(str(error), status=getattr(error, "status", 500))


def _money(amount: int, currency: str) -> str:
    """Format an amount in minor units: ``-USD 1,234.50``."""
    size, sign = abs(amount), "-" if amount < 0 else ""
    return f"{sign}{currency.upper()} {Decimal(size).scaleb(-DECIMALS.get(currency, 2)):,f}"


def _table(rows: Iterable[tuple[Any, ...]]) -> str:
    cells = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows)
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"


def _page(title: str, body: str = "", status: int = 200) -> Response:
    html = Template((HERE / "page.html").read_text()).substitute(title=escape(title), body=body)
    policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"
    return HTMLResponse(html, status, {"content-security-policy": policy})
