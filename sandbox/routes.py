"""The table of contents: every operation, what it takes, and what Stripe has that we have not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sandbox import catalogue, credit_notes, customers, endpoints, invoices, lines, payments
from sandbox.account import Unit
from sandbox.errors import StripeError, unsimulated
from sandbox.forms import Fields, fields
from sandbox.lists import PAGING
from sandbox.search import search
from sandbox.shapes import Json, shape


@dataclass(frozen=True, slots=True)
class Operation:
    """One row: ``endpoint`` is ``METHOD /v1/template``, the unit in which Stripe counts calls."""

    endpoint: str
    handle: Callable[..., Json]
    fields: Fields
    kind: str


CREATED: Final = PAGING + "created:when "
CUSTOMER: Final = (
    "address:address balance:int business_name description email individual_name invoice_prefix "
    "invoice_settings:invoice_settings metadata:map name next_invoice_sequence:int phone "
    "preferred_locales:[str] shipping:shipping tax_exempt cash_balance! source! tax! validate! "
)
INVOICE: Final = (
    "auto_advance:bool automatically_finalizes_at:int collection_method custom_fields:[custom_field] "
    "days_until_due:int default_payment_method description due_date:int effective_at:int footer "
    "metadata:map number statement_descriptor account_tax_ids! application_fee_amount! "
    "automatic_tax! default_source! default_tax_rates! discounts! issuer! on_behalf_of! "
    "payment_settings! rendering! shipping_cost! shipping_details! transfer_data! "
)
ITEM: Final = (
    "amount:int description discountable:bool metadata:map period:period price_data:price_data "
    "pricing:pricing quantity:int quantity_decimal:decimal unit_amount_decimal:decimal "
    "discounts! tax_behavior! tax_code! tax_rates! "
)
NOTE: Final = (
    "invoice* amount:int credit_amount:int effective_at:int lines:[credit_line] memo metadata:map "
    "out_of_band_amount:int reason email_type! refund_amount! refunds! shipping_cost! "
)
PRODUCT: Final = (
    "active:bool description images:[str] metadata:map name shippable:bool statement_descriptor "
    "unit_label url marketing_features! package_dimensions! tax_code! tax_details! "
)
PRICE: Final = "active:bool lookup_key metadata:map nickname tax_behavior transfer_lookup_key:bool "


def retrieve(kind: str) -> Callable[..., Json]:
    """Return the operation that shows one object of *kind*."""
    return lambda unit, params, object_id: shape(unit, kind, unit.get(kind, object_id))


def retrieve_in_customer(unit: Unit, params: dict[str, Any], customer: str, entry: str) -> Json:
    """Show one of a customer's balance transactions."""
    unit.get("customers", customer)
    return shape(unit, "balance_transactions", unit.get("balance_transactions", entry))


def update_in_customer(unit: Unit, params: dict[str, Any], customer: str, entry: str) -> Json:
    """Change the description or metadata of a balance transaction."""
    old = unit.get("balance_transactions", entry)
    return shape(unit, "balance_transactions", unit.put("balance_transactions", {**old, **params}))


def operations(search_lag: Callable[[], int]) -> list[Operation]:
    """Return every simulated operation."""
    invoice, customer = "/v1/invoices/{invoice}", "/v1/customers/{customer}"
    balance = f"{customer}/balance_transactions"
    bulk = "invoice_metadata:map "
    rows: list[tuple[str, Callable[..., Json], str]] = [
        (
            "POST /v1/customers",
            customers.create,
            CUSTOMER + "payment_method tax_id_data! test_clock!",
        ),
        ("GET /v1/customers", customers.list_customers, CREATED + "email test_clock!"),
        ("GET /v1/customers/search", search("customers", search_lag), "query* limit:int page"),
        (f"GET {customer}", customers.retrieve, ""),
        (f"POST {customer}", customers.update, CUSTOMER + "default_source!"),
        (f"DELETE {customer}", customers.delete, ""),
        (f"GET {balance}", customers.list_balance_transactions, CREATED + "invoice"),
        (
            f"POST {balance}",
            customers.create_balance_transaction,
            "amount*:int currency* description metadata:map",
        ),
        (f"GET {balance}/{{transaction}}", retrieve_in_customer, ""),
        (f"POST {balance}/{{transaction}}", update_in_customer, "description metadata:map"),
        (
            f"GET {customer}/payment_methods",
            payments.list_methods,
            PAGING + "type allow_redisplay!",
        ),
        (f"GET {customer}/payment_methods/{{payment_method}}", payments.retrieve_method, ""),
        ("GET /v1/payment_methods/{payment_method}", retrieve("payment_methods"), ""),
        (
            "POST /v1/payment_methods/{payment_method}/attach",
            payments.attach,
            "customer* customer_account!",
        ),
        ("POST /v1/payment_methods/{payment_method}/detach", payments.detach, ""),
        (
            "POST /v1/billing_portal/sessions",
            customers.create_portal_session,
            "customer* return_url locale after_expiration! configuration! customer_account! "
            "flow_data! on_behalf_of!",
        ),
        (
            "POST /v1/products",
            catalogue.create_product,
            PRODUCT.replace("name ", "name* ") + "id type default_price_data!",
        ),
        (
            "GET /v1/products",
            catalogue.list_products,
            CREATED + "active:bool ids:[str] shippable:bool type url",
        ),
        ("GET /v1/products/{id}", retrieve("products"), ""),
        ("POST /v1/products/{id}", catalogue.update_product, PRODUCT + "default_price"),
        ("DELETE /v1/products/{id}", catalogue.delete_product, ""),
        (
            "POST /v1/prices",
            catalogue.create_price,
            PRICE + "currency* product product_data:product_data unit_amount:int "
            "unit_amount_decimal:decimal billing_scheme! currency_options! custom_unit_amount! "
            "recurring! tiers! tiers_mode! transform_quantity!",
        ),
        (
            "GET /v1/prices",
            catalogue.list_prices,
            CREATED + "active:bool currency lookup_keys:[str] product recurring:recurring type",
        ),
        ("GET /v1/prices/{price}", retrieve("prices"), ""),
        ("POST /v1/prices/{price}", catalogue.update_price, PRICE + "currency_options!"),
        (
            "POST /v1/invoices",
            invoices.create,
            INVOICE + "customer currency pending_invoice_items_behavior customer_account! "
            "from_invoice! subscription!",
        ),
        (
            "GET /v1/invoices",
            invoices.list_invoices,
            CREATED
            + "customer status collection_method due_date:when customer_account subscription",
        ),
        ("GET /v1/invoices/search", search("invoices", search_lag), "query* limit:int page"),
        (
            "POST /v1/invoices/create_preview",
            invoices.create_preview,
            "customer currency invoice_items:[preview_item] automatic_tax! customer_account! "
            "customer_details! discounts! issuer! on_behalf_of! preview_mode! schedule! "
            "schedule_details! subscription! subscription_details!",
        ),
        (f"GET {invoice}", retrieve("invoices"), ""),
        (f"POST {invoice}", invoices.update, INVOICE),
        (f"DELETE {invoice}", invoices.delete, ""),
        (f"POST {invoice}/add_lines", lines.add_lines, bulk + "lines*:[line]"),
        (f"POST {invoice}/update_lines", lines.update_lines, bulk + "lines*:[line_edit]"),
        (f"POST {invoice}/remove_lines", lines.remove_lines, bulk + "lines*:[line_removal]"),
        (f"GET {invoice}/lines", lines.list_lines, PAGING),
        (
            f"POST {invoice}/lines/{{line_item_id}}",
            lines.update_line,
            "amount:int description discountable:bool metadata:map period:period pricing:pricing "
            "price_data:price_data quantity:int quantity_decimal:decimal discounts! tax_amounts! "
            "tax_rates!",
        ),
        (f"POST {invoice}/finalize", invoices.finalize, "auto_advance:bool"),
        (
            f"POST {invoice}/pay",
            payments.pay,
            "paid_out_of_band:bool payment_method off_session:bool forgive! mandate! source!",
        ),
        (f"POST {invoice}/void", invoices.void, ""),
        (f"POST {invoice}/mark_uncollectible", invoices.mark_uncollectible, ""),
        (f"POST {invoice}/send", invoices.send, ""),
        (
            "POST /v1/invoiceitems",
            lines.create_item,
            ITEM + "customer currency invoice customer_account! subscription!",
        ),
        (
            "GET /v1/invoiceitems",
            lines.list_items,
            CREATED + "customer invoice pending:bool customer_account!",
        ),
        ("GET /v1/invoiceitems/{invoiceitem}", lines.retrieve_item, ""),
        ("POST /v1/invoiceitems/{invoiceitem}", lines.update_item, ITEM + "invoicing_rules!"),
        ("DELETE /v1/invoiceitems/{invoiceitem}", lines.delete_item, ""),
        ("GET /v1/invoice_payments", payments.list_payments, CREATED + "invoice status payment!"),
        ("GET /v1/invoice_payments/{invoice_payment}", retrieve("invoice_payments"), ""),
        ("POST /v1/credit_notes", credit_notes.create, NOTE),
        (
            "GET /v1/credit_notes",
            credit_notes.list_notes,
            CREATED + "customer invoice customer_account!",
        ),
        ("GET /v1/credit_notes/preview", credit_notes.preview, NOTE),
        ("GET /v1/credit_notes/{id}", retrieve("credit_notes"), ""),
        ("POST /v1/credit_notes/{id}/void", credit_notes.void, ""),
        (
            "GET /v1/events",
            endpoints.list_events,
            CREATED + "type types:[str] delivery_success:bool",
        ),
        ("GET /v1/events/{id}", retrieve("events"), ""),
        (
            "POST /v1/webhook_endpoints",
            endpoints.create,
            "url* enabled_events*:[str] api_version description metadata:map connect!",
        ),
        ("GET /v1/webhook_endpoints", endpoints.list_endpoints, PAGING),
        ("GET /v1/webhook_endpoints/{webhook_endpoint}", retrieve("webhook_endpoints"), ""),
        (
            "POST /v1/webhook_endpoints/{webhook_endpoint}",
            endpoints.update,
            "url enabled_events:[str] description metadata:map disabled:bool",
        ),
        ("DELETE /v1/webhook_endpoints/{webhook_endpoint}", endpoints.delete, ""),
    ]
    return [_operation(endpoint, handle, text) for endpoint, handle, text in rows]


# The first words of paths that Stripe serves and we do not.
ELSEWHERE: Final = frozenset(
    "account account_links account_sessions accounts apple_pay application_fees apps balance "
    "balance_settings balance_transactions billing charges checkout climate confirmation_tokens "
    "country_specs coupons customer_sessions disputes entitlements ephemeral_keys exchange_rates "
    "external_accounts file_links files financial_connections forwarding identity "
    "invoice_rendering_templates issuing mandates payment_attempt_records payment_intents "
    "payment_links payment_method_configurations payment_method_domains payment_records payouts "
    "plans promotion_codes quotes radar refunds reporting reviews setup_attempts setup_intents "
    "shipping_rates sigma sources subscription_items subscription_schedules subscriptions tax "
    "tax_codes tax_ids tax_rates terminal test_helpers tokens topups transfers treasury".split()
)
# And those below a resource that we do have.
BESIDES: Final = (
    "customers/*/cash_balance customers/*/cash_balance_transactions customers/*/discount "
    "customers/*/funding_instructions customers/*/sources customers/*/subscriptions "
    "customers/*/tax_ids customers/*/bank_accounts customers/*/cards invoices/*/attach_payment "
    "invoices/*/detach_payment credit_notes/*/lines credit_notes/preview/lines payment_methods "
    "products/*/features prices/search products/search billing_portal/configurations "
    "invoices/upcoming"
).split()


class Routes:
    """Finds the operation for a request by walking its path a word at a time."""

    def __init__(self, table: list[Operation]) -> None:
        self.table = table
        self._tree: dict[str, Any] = {}
        for operation in table:
            method, template = operation.endpoint.split(" ")
            node = self._tree
            for word in template.strip("/").split("/")[1:]:
                node = node.setdefault("*" if word.startswith("{") else word, {})
            node[f" {method}"] = operation

    def find(self, method: str, path: str) -> tuple[Operation, list[str]]:
        """Return the operation and the ids in its path; StripeError 404, or 501 if Stripe has it."""
        node, ids = self._tree, []
        for word in path.split("/")[2:]:
            following = node.get(word)
            if following is None and (following := node.get("*")) is not None:
                ids.append(word)
            if following is None or not word:
                raise _nowhere(method, path)
            node = following
        operation = node.get(f" {method}")
        if operation is None:
            raise _nowhere(method, path)
        return operation, ids


def _nowhere(method: str, path: str) -> StripeError:
    words = path.removeprefix("/v1/").split("/")
    known = any(
        len(words) >= len(pattern)
        and all(want in ("*", word) for want, word in zip(pattern, words, strict=False))
        for pattern in (entry.split("/") for entry in BESIDES)
    )
    if words[0] in ELSEWHERE or known:
        return unsimulated(f"{method} {path}")
    return StripeError(
        404,
        f"Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs or we "
        "can help at https://support.stripe.com/.",
    )


def _operation(endpoint: str, handle: Callable[..., Json], text: str) -> Operation:
    method, template = endpoint.split(" ")
    listing = "limit:int" in text
    known = fields(text if method == "DELETE" else f"{text} expand:[str]")
    return Operation(endpoint, handle, known, "LIST" if listing else method)
