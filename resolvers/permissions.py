"""Permissions: one table with the roles that may read or call each field of the schema.

`apply` guards the fields of a schema when it is built. It fails if a field has no entry in the table, or if a field
lacks its guard, so that nothing is served without permissions. Ownership of an object is checked where the object
is loaded (`Viewer.may_see`).
"""

from collections.abc import Callable, Mapping
from typing import Any

from graphql import GraphQLField, GraphQLObjectType, GraphQLResolveInfo, GraphQLSchema

from resolvers.context import Context, Role

EVERYONE = frozenset(Role)
PANEL = frozenset({Role.CUSTOMER, Role.SUPPORT})
SUPPORT = frozenset({Role.SUPPORT})
METERING = frozenset({Role.METERING})

Roles = frozenset[Role]

_TABLE: Mapping[str, Mapping[Roles, str]] = {
    "Query": {
        EVERYONE: "viewer",
        PANEL: "node nodes customer invoice sync period",
        SUPPORT: "customers unpaidInvoices syncs webhookEvents holds stripeBudget auditLog",
    },
    "Mutation": {
        PANEL: "syncBilling createPortalSession",
        METERING: "recordUsage",
        SUPPORT: "adjustUsage holdBilling releaseBilling finalizeInvoice previewSync retrySync repairDrift replayWebhookEvent "
        "sweepWebhookEvents",
    },
    "Subscription": {PANEL: "billingChanged"},
    "Viewer": {EVERYONE: "role", PANEL: "customers customerIds"},
    "Customer": {
        PANEL: "id organization name email currency delinquent creditBalance defaultPaymentMethod paymentMethods "
        "invoices currentPeriod period spendHistory syncState freshness",
        SUPPORT: "stripeDashboardUrl hold adjustments drift auditLog",
    },
    "BillingPeriod": {
        PANEL: "start end state invoice inStripe claimed pending total estimate usage asOf"
    },
    "UsageBreakdown": {
        PANEL: "key description quantity unit amount unitPrice corrections",
        SUPPORT: "stripeDashboardUrl",
    },
    "MonthlySpend": {PANEL: "month total invoices"},
    "Invoice": {
        PANEL: "id number status customer periodStart periodEnd createdAt finalizedAt finalizesAt paidAt dueAt isOverdue "
        "subtotal tax total amountDue amountPaid amountRemaining bill collectionMethod paymentAttempts "
        "nextPaymentAttemptAt paymentFailure lines usagePeriod hostedInvoiceUrl invoicePdf freshness",
        SUPPORT: "stripeDashboardUrl availableActions",
    },
    "Bill": {PANEL: "rows amountDue estimated"},
    "BillRow": {PANEL: "kind amount estimated"},
    "PaymentFailure": {PANEL: "code declineCode message actionRequired"},
    "InvoiceAction": {SUPPORT: "action blockedBy"},
    "InvoiceLine": {
        PANEL: "id description sku quantity unitAmount amount periodStart periodEnd",
        SUPPORT: "stripeDashboardUrl",
    },
    "PaymentMethod": {
        PANEL: "id type brand last4 expMonth expYear freshness",
        SUPPORT: "stripeDashboardUrl",
    },
    "Sync": {
        PANEL: "id customer status trigger requestedAt startedAt finishedAt deltas linesAdded linesUpdated "
        "linesRemoved stripeCalls attempts nextAttemptAt invoice failure",
        SUPPORT: "stripeDashboardUrl",
    },
    "SyncFailure": {PANEL: "code message requestId", SUPPORT: "stripeDashboardUrl"},
    "SyncState": {PANEL: "status lastSyncedAt pendingDeltas oldestPendingAt nextSyncAt lastSync"},
    "Money": {PANEL: "amount currency formatted rounded"},
    "Freshness": {PANEL: "source fetchedAt"},
    "UserError": {EVERYONE: "code message path retryAfter"},
    "PageInfo": {PANEL: "hasNextPage hasPreviousPage startCursor endCursor"},
    "SyncBillingPayload": {PANEL: "sync coalesced errors"},
    "CreatePortalSessionPayload": {PANEL: "url sync errors"},
    "RecordUsagePayload": {METERING: "accepted duplicates rejected durability ledgerEpoch errors"},
    "RejectedDelta": {METERING: "id error"},
    "AdjustUsagePayload": {SUPPORT: "adjustment sync errors"},
    "Adjustment": {SUPPORT: "id period sku quantity amount reason by at stripeDashboardUrl"},
    "HoldBillingPayload": {SUPPORT: "hold errors"},
    "BillingHold": {SUPPORT: "reason by since"},
    "Hold": {SUPPORT: "customerId customer reason by since"},
    "ReleaseBillingPayload": {SUPPORT: "customer errors"},
    "FinalizeInvoicePayload": {SUPPORT: "invoice errors"},
    "PreviewSyncPayload": {SUPPORT: "plan errors"},
    "SyncPlan": {
        SUPPORT: "createsInvoice linesAdded linesUpdated linesRemoved warnings total stripeCalls"
    },
    "PlannedLine": {SUPPORT: "sku quantity amount wasQuantity stripeDashboardUrl"},
    "RetrySyncPayload": {SUPPORT: "sync errors"},
    "RepairDriftPayload": {SUPPORT: "sync errors"},
    "DriftReport": {SUPPORT: "lines checkedAt conflictingDeltas"},
    "DriftLine": {SUPPORT: "sku lineId kind expected found amount stripeDashboardUrl"},
    "ReplayWebhookEventPayload": {SUPPORT: "event errors"},
    "SweepWebhookEventsPayload": {SUPPORT: "errors"},
    "WebhookEvent": {
        SUPPORT: "id type status receivedAt processedAt attempts objectId customerId failure stripeDashboardUrl",
    },
    "StripeBudget": {SUPPORT: "lanes endpoints limitedUntil reads readAllowance"},
    "BudgetLane": {SUPPORT: "lane waiting"},
    "EndpointBudget": {SUPPORT: "endpoint perSecond available throttled"},
    "AuditEntry": {SUPPORT: "at by action reason outcome changes detail"},
    "AuditChange": {SUPPORT: "what before after"},
    "BillingChange": {PANEL: "reason customer sync invoice at"},
    **{
        f"{node}{shape}": {roles: fields}
        for shape, fields in (("Connection", "edges nodes pageInfo"), ("Edge", "cursor node"))
        for roles, nodes in (
            (PANEL, "Customer Invoice InvoiceLine PaymentMethod"),
            (SUPPORT, "Sync WebhookEvent Hold Adjustment AuditEntry"),
        )
        for node in nodes.split()
    },
}

PERMISSIONS: Mapping[tuple[str, str], Roles] = {
    (type_name, field): roles
    for type_name, rules in _TABLE.items()
    for roles, fields in rules.items()
    for field in fields.split()
}

_ROOTS = frozenset({"Query", "Mutation", "Subscription"})
_UNGUARDED = "unguarded-resolver"


class PermissionTableMismatch(Exception):
    """The schema and the permission table differ in their fields, or a field lacks its guard."""


class RoleGuard:
    """The resolver of a guarded field: only viewers with one of *roles* get past it."""

    def __init__(self, resolve: Callable[..., Any], roles: Roles) -> None:
        self._resolve = resolve
        self.roles = roles

    def __call__(self, source: Any, info: GraphQLResolveInfo[Context], **arguments: Any) -> Any:
        """Call the guarded resolver, or raise a GraphQLError (FORBIDDEN)."""
        info.context.viewer.require_role(*self.roles)
        return self._resolve(source, info, **arguments)


def apply(schema: GraphQLSchema) -> None:
    """Guard the fields of *schema*; PermissionTableMismatch if the table and the schema differ."""
    fields = _fields(schema)
    if fields.keys() != PERMISSIONS.keys():
        differing = sorted(".".join(key) for key in fields.keys() ^ PERMISSIONS.keys())
        raise PermissionTableMismatch(
            f"Not both in the schema and in resolvers/permissions.py: {', '.join(differing)}"
        )
    for key, roles in PERMISSIONS.items():
        if _needs_guard(*key):
            _guard(fields[key], roles)
        else:
            mark_unguarded(fields[key])
    verify(schema)


def verify(schema: GraphQLSchema) -> None:
    """Raise PermissionTableMismatch unless each field that needs a guard has it."""
    missing = [
        ".".join(key)
        for key, field in _fields(schema).items()
        if _needs_guard(*key) and not _has_guard(field, PERMISSIONS[key])
    ]
    if missing:
        raise PermissionTableMismatch(f"Without a guard: {', '.join(missing)}")


def mark_unguarded(field: GraphQLField) -> None:
    """Allow the executor to read *field* without calling its resolver, as long as that is not replaced."""
    field.extensions[_UNGUARDED] = field.resolve


def mark_all_unguarded(schema: GraphQLSchema) -> None:
    """As `mark_unguarded`, for every field of a *schema* without permissions."""
    for field in _fields(schema).values():
        mark_unguarded(field)


def is_unguarded(field: GraphQLField) -> bool:
    """True if *field* was marked and its resolver was not replaced since; any other field may have a guard."""
    marked = _UNGUARDED in field.extensions
    return marked and field.extensions[_UNGUARDED] is field.resolve


def _fields(schema: GraphQLSchema) -> dict[tuple[str, str], GraphQLField]:
    return {
        (type_.name, name): field
        for type_ in schema.type_map.values()
        if isinstance(type_, GraphQLObjectType) and not type_.name.startswith("__")
        for name, field in type_.fields.items()
    }


def _needs_guard(type_name: str, field: str) -> bool:
    """True unless every viewer that can reach an object of this type may read the field, panels among them."""
    roles, reaching = PERMISSIONS[type_name, field], frozenset[Role]().union(*_TABLE[type_name])
    return type_name in _ROOTS or roles != reaching or not roles >= PANEL


def _guard(field: GraphQLField, roles: Roles) -> None:
    if field.resolve is not None:
        field.resolve = RoleGuard(field.resolve, roles)
    if field.subscribe is not None:
        field.subscribe = RoleGuard(field.subscribe, roles)


def _has_guard(field: GraphQLField, roles: Roles) -> bool:
    resolvers = (field.resolve, field.subscribe or field.resolve)
    return all(isinstance(guard, RoleGuard) and guard.roles == roles for guard in resolvers)
