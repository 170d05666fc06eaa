"""Every list in the schema has a bound: an argument that sets its size, or a reason why it is short."""

from collections.abc import Iterator

import pytest
from graphql import (
    GraphQLField,
    GraphQLObjectType,
    GraphQLSchema,
    get_nullable_type,
    is_introspection_type,
    is_list_type,
)

from gateway.graphql.admission.cost import SIZE_ARGUMENTS
from schema.build import build_schema

SHORT = {
    "Viewer.customerIds": "the token names them, in at most 8,192 characters",
    "Invoice.availableActions": "one for each member of an enum",
    "InvoiceAction.blockedBy": "one for each member of an enum",
    "Bill.rows": "one for each member of an enum",
    "AuditEntry.changes": "those of one action",
    "StripeBudget.lanes": "one for each of five lanes",
    "StripeBudget.endpoints": "one for each endpoint of Stripe that the gateway calls",
    "DriftReport.lines": "lines of unsealed drafts; Stripe allows 250 a draft",
    "SyncPlan.linesAdded": "lines of one draft; Stripe allows 250",
    "SyncPlan.linesUpdated": "lines of one draft; Stripe allows 250",
    "SyncPlan.linesRemoved": "lines of one draft; Stripe allows 250",
    "SyncPlan.warnings": "one for each of three doubts",
    "RecordUsagePayload.rejected": "at most as many as were sent, in a body of bounded size",
    "UserError.path": "the depth of an input",
}


@pytest.fixture(scope="module")
def core() -> GraphQLSchema:
    """The schema as the gateway executes it."""
    return build_schema()._schema


def lists(schema: GraphQLSchema) -> Iterator[tuple[str, GraphQLField]]:
    """Yield each list field but introspection's, with its name."""
    for type_ in schema.type_map.values():
        if isinstance(type_, GraphQLObjectType) and not is_introspection_type(type_):
            for name, field in type_.fields.items():
                if is_list_type(get_nullable_type(field.type)):
                    yield f"{type_.name}.{name}", field


def pages(schema: GraphQLSchema) -> Iterator[tuple[str, GraphQLField]]:
    """Yield each field whose type is a connection, with its name."""
    for type_ in schema.type_map.values():
        if isinstance(type_, GraphQLObjectType):
            for name, field in type_.fields.items():
                if str(get_nullable_type(field.type)).endswith("Connection"):
                    yield f"{type_.name}.{name}", field


def test_every_list_has_a_bound(core: GraphQLSchema) -> None:
    """One without would cost, and block the event loop, as much as a customer makes of it."""
    unbounded = {
        name
        for name, field in lists(core)
        if not name.partition(".")[0].endswith("Connection")
        and not name.endswith(".errors")  # few, and only of one mutation
        and not field.args.keys() & set(SIZE_ARGUMENTS)
    }

    assert unbounded == SHORT.keys()


def test_every_connection_has_a_page_size(core: GraphQLSchema) -> None:
    """Its `nodes` and `edges` are as long as its argument says."""
    found = dict(pages(core))

    assert len(found) >= 10
    assert [name for name, field in found.items() if "first" not in field.args] == []
