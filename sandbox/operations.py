"""The table of contents: every operation and what it takes.

An operation is its method and path, the function that does it (``show`` for a plain retrieve),
and, indented below, the fields it takes in the notation of ``sandbox.fields``; ``@name`` stands for
a set of fields that several operations share.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Final

from sandbox import (
    balance,
    catalogue,
    credit_notes,
    customers,
    endpoints,
    finalization,
    invoices,
    items,
    lines,
    payments,
    searching,
)
from sandbox.defaults import Json
from sandbox.fields import Fields, fields
from sandbox.shapes import shape

SHARED: Final = {
    "@list": "limit:int starting_after ending_before created:when",
    "@page": "limit:int starting_after ending_before",
    "@customer": "address:address balance:int business_name description email individual_name "
    "invoice_prefix invoice_settings:invoice_settings metadata:map name next_invoice_sequence:int "
    "phone preferred_locales:[str] shipping:shipping tax_exempt cash_balance! source! tax! validate!",
    "@invoice": "auto_advance:bool automatically_finalizes_at:int collection_method "
    "custom_fields:[custom_field] days_until_due:int default_payment_method description "
    "due_date:int effective_at:int footer metadata:map number statement_descriptor "
    "account_tax_ids! application_fee_amount! automatic_tax! default_source! default_tax_rates! "
    "discounts! issuer! on_behalf_of! payment_settings! rendering! shipping_cost! "
    "shipping_details! transfer_data!",
    "@line": "amount:int description discountable:bool metadata:map period:period "
    "pricing:pricing quantity:int quantity_decimal:decimal discounts! tax_rates!",
    "@note": "invoice* amount:int credit_amount:int effective_at:int lines:[credit_line] memo "
    "metadata:map out_of_band_amount:int reason email_type! refund_amount! refunds! shipping_cost!",
    "@product": "active:bool description images:[str] metadata:map shippable:bool "
    "statement_descriptor unit_label url marketing_features! package_dimensions! tax_code! "
    "tax_details!",
    "@price": "active:bool lookup_key metadata:map nickname tax_behavior "
    "transfer_lookup_key:bool currency_options!",
}
TABLE: Final = """
POST /v1/customers customers.create
    @customer payment_method tax_id_data! test_clock!
GET /v1/customers customers.list_customers
    @list email test_clock!
GET /v1/customers/search searching.customers
    query* limit:int page
GET /v1/customers/{customer} customers.retrieve
POST /v1/customers/{customer} customers.update
    @customer default_source!
DELETE /v1/customers/{customer} customers.delete
GET /v1/customers/{customer}/balance_transactions balance.list_entries
    @list invoice
POST /v1/customers/{customer}/balance_transactions balance.create
    amount*:int currency* description metadata:map
GET /v1/customers/{customer}/balance_transactions/{transaction} balance.retrieve
POST /v1/customers/{customer}/balance_transactions/{transaction} balance.update
    description metadata:map
GET /v1/customers/{customer}/payment_methods payments.list_methods
    @page type allow_redisplay!
GET /v1/customers/{customer}/payment_methods/{payment_method} payments.retrieve_method
GET /v1/payment_methods/{payment_method} show.payment_methods
POST /v1/payment_methods/{payment_method}/attach payments.attach
    customer customer_account!
POST /v1/payment_methods/{payment_method}/detach payments.detach
POST /v1/billing_portal/sessions customers.create_portal_session
    customer return_url locale flow_data:flow after_expiration! configuration! customer_account!
    on_behalf_of!

POST /v1/products catalogue.create_product
    @product name* id type default_price_data!
GET /v1/products catalogue.list_products
    @list active:bool ids:[str] shippable:bool type url
GET /v1/products/{id} show.products
POST /v1/products/{id} catalogue.update_product
    @product name default_price
DELETE /v1/products/{id} catalogue.delete_product
POST /v1/prices catalogue.create_price
    @price currency* product product_data:price_product unit_amount:int unit_amount_decimal:decimal
    billing_scheme! custom_unit_amount! recurring! tiers! tiers_mode! transform_quantity!
GET /v1/prices catalogue.list_prices
    @list active:bool currency lookup_keys:[str] product recurring:recurring type
GET /v1/prices/{price} show.prices
POST /v1/prices/{price} catalogue.update_price
    @price

POST /v1/invoices invoices.create
    @invoice customer currency pending_invoice_items_behavior customer_account! from_invoice!
    subscription!
GET /v1/invoices invoices.list_invoices
    @list customer status collection_method due_date:when customer_account! subscription!
GET /v1/invoices/search searching.invoices
    query* limit:int page
POST /v1/invoices/create_preview invoices.create_preview
    customer currency invoice_items:[preview_item] automatic_tax! customer_account!
    customer_details! discounts! issuer! on_behalf_of! preview_mode! schedule! schedule_details!
    subscription! subscription_details!
GET /v1/invoices/{invoice} show.invoices
POST /v1/invoices/{invoice} invoices.update
    @invoice
DELETE /v1/invoices/{invoice} invoices.delete
POST /v1/invoices/{invoice}/add_lines lines.add_lines
    lines*:[line] invoice_metadata:map
POST /v1/invoices/{invoice}/update_lines lines.update_lines
    lines*:[line_edit] invoice_metadata:map
POST /v1/invoices/{invoice}/remove_lines lines.remove_lines
    lines*:[line_removal] invoice_metadata:map
GET /v1/invoices/{invoice}/lines lines.list_lines
    @page
POST /v1/invoices/{invoice}/lines/{line_item_id} lines.update_line
    @line price_data:price_data tax_amounts!
POST /v1/invoices/{invoice}/finalize finalization.finalize
    auto_advance:bool
POST /v1/invoices/{invoice}/pay payments.pay
    paid_out_of_band:bool payment_method off_session:bool forgive! mandate! source!
POST /v1/invoices/{invoice}/void invoices.void
POST /v1/invoices/{invoice}/mark_uncollectible invoices.mark_uncollectible
POST /v1/invoices/{invoice}/send invoices.send
POST /v1/invoiceitems items.create
    @line price_data:catalogue_price_data unit_amount_decimal:decimal customer currency invoice
    customer_account! subscription! tax_behavior! tax_code!
GET /v1/invoiceitems items.list_items
    @list customer invoice pending:bool customer_account!
GET /v1/invoiceitems/{invoiceitem} items.retrieve
POST /v1/invoiceitems/{invoiceitem} items.update
    @line price_data:catalogue_price_data unit_amount_decimal:decimal invoicing_rules!
    tax_behavior! tax_code!
DELETE /v1/invoiceitems/{invoiceitem} items.delete
GET /v1/invoice_payments payments.list_payments
    @list invoice status payment!
GET /v1/invoice_payments/{invoice_payment} show.invoice_payments

POST /v1/credit_notes credit_notes.create
    @note
GET /v1/credit_notes credit_notes.list_notes
    @list customer invoice customer_account!
GET /v1/credit_notes/preview credit_notes.preview
    @note
GET /v1/credit_notes/{id} show.credit_notes
POST /v1/credit_notes/{id} credit_notes.update
    memo metadata:map
POST /v1/credit_notes/{id}/void credit_notes.void

GET /v1/events endpoints.list_events
    @list type types:[str] delivery_success:bool
GET /v1/events/{id} show.events
POST /v1/webhook_endpoints endpoints.create
    url* enabled_events*:[str] api_version description metadata:map connect!
GET /v1/webhook_endpoints endpoints.list_endpoints
    @page
GET /v1/webhook_endpoints/{webhook_endpoint} show.webhook_endpoints
POST /v1/webhook_endpoints/{webhook_endpoint} endpoints.update
    url enabled_events:[str] description metadata:map disabled:bool
DELETE /v1/webhook_endpoints/{webhook_endpoint} endpoints.delete
"""
_ROOMS: Final[dict[str, ModuleType]] = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        balance,
        catalogue,
        credit_notes,
        customers,
        endpoints,
        finalization,
        invoices,
        items,
        lines,
        payments,
        searching,
    )
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One row: ``endpoint`` is ``METHOD /v1/template``, the unit in which Stripe counts calls."""

    endpoint: str
    handle: Callable[..., Json]
    fields: Fields
    kind: str


def operations() -> Iterator[Operation]:
    """Read the table."""
    for entry in TABLE.replace("\n    ", " ").split("\n"):
        if entry:
            method, template, name, *words = entry.split()
            if method != "DELETE":
                words.append("expand:[str]")
            taken = fields(" ".join(SHARED.get(word, word) for word in words))
            kind = "LIST" if "limit" in taken else method
            yield Operation(f"{method} {template}", _handle(name), taken, kind)


def _handle(name: str) -> Callable[..., Json]:
    room, _, verb = name.partition(".")
    if room == "show":
        return lambda unit, _, object_id: shape(unit, verb, unit.get(verb, object_id))
    handle: Callable[..., Json] = getattr(_ROOMS[room], verb)
    return handle
