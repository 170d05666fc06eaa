"""Parses, bounds, validates and prices documents, one at a time; caches the valid ones."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakValueDictionary

from cachetools import LRUCache
from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    parse,
    specified_rules,
    validate,
)
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from gateway.graphql.admission.cost import QueryCost, analyze_cost
from gateway.graphql.admission.introspection import IntrospectionCount
from gateway.graphql.admission.limits import Limits, check_limits, check_text, fragments_of
from gateway.graphql.admission.lookups import Lookups
from gateway.graphql.errors import request_error, shorten

# graphql-core's rules and the two that Strawberry adds.
VALIDATION_RULES = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a valid document.

    *introspects* when it selects ``__schema`` or ``__type``, *only_introspects* when it selects nothing else.
    """

    type: OperationType
    cost: QueryCost
    lookups: Lookups
    introspects: bool
    only_introspects: bool


@dataclass(frozen=True, slots=True)
class Document:
    """A valid document and its *operations*, by name."""

    ast: DocumentNode
    operations: Mapping[str | None, Operation]

    def operation(self, name: str | None) -> Operation:
        """Return the operation named *name*, or the only one; a GraphQLError when that is ambiguous."""
        if name is None and len(self.operations) == 1:
            return next(iter(self.operations.values()))
        if name is None:
            raise request_error(
                "OPERATION_RESOLUTION_FAILURE",
                "The document has several operations; name one in `operationName`.",
            )
        if name not in self.operations:
            raise request_error(
                "OPERATION_RESOLUTION_FAILURE", f'No operation is named "{shorten(name)}".'
            )
        return self.operations[name]


class InvalidDocument(Exception):
    """The document is invalid for the reasons in *errors*."""

    def __init__(self, errors: list[GraphQLError]) -> None:
        super().__init__()
        self.errors = errors


class DocumentCache:
    """Prepares documents for *schema* within *limits*; caches the *capacity* last used valid ones.

    Invalid documents are not cached, so that a stream of them evicts nothing. One document is prepared at a
    time, and of each group of callers only one waits for that: everybody else gets every second iteration of the loop.
    """

    def __init__(self, schema: GraphQLSchema, limits: Limits, *, capacity: int = 256) -> None:
        self._schema = schema
        self._limits = limits
        self._documents: LRUCache[str, Document] = LRUCache(capacity)
        self._lock = asyncio.Lock()
        self._group_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def get(self, text: str) -> Document | None:
        """Return the document of *text* if it was prepared before."""
        return self._documents.get(text)

    async def prepare(self, text: str, *, group: str = "", suggestions: bool = False) -> Document:
        """Return the document of *text*, or raise `InvalidDocument`, with *suggestions* in its errors or without."""
        group_lock = self._group_locks.setdefault(group, asyncio.Lock())
        async with group_lock, self._lock:
            document = self._documents.get(text)
            if document is None:
                document = self._documents[text] = await self._prepare(text, suggestions)
            return document

    async def _prepare(self, text: str, suggestions: bool) -> Document:
        ast = self._parse(text)
        check_limits(ast, self._limits)
        # The worst document within the limits takes 10 ms to here and 20 ms from here on.
        await asyncio.sleep(0)
        errors = validate(
            self._schema,
            ast,
            VALIDATION_RULES,
            max_errors=self._limits.errors,
            hide_suggestions=not suggestions,
        )
        if errors:
            for error in errors:
                error.extensions = {"code": "GRAPHQL_VALIDATION_FAILED", **(error.extensions or {})}
            raise InvalidDocument(errors)
        await asyncio.sleep(0)
        return Document(ast, self._operations(ast))

    def _parse(self, text: str) -> DocumentNode:
        limits = self._limits
        check_text(text, limits)
        try:
            return parse(text, max_tokens=limits.tokens, max_source_length=limits.characters)
        except GraphQLError as error:
            error.extensions = {"code": "GRAPHQL_PARSE_FAILED"}
            raise InvalidDocument([error]) from None

    def _operations(self, ast: DocumentNode) -> dict[str | None, Operation]:
        return {
            node.name.value if node.name else None: self._operation(node, ast)
            for node in ast.definitions
            if isinstance(node, OperationDefinitionNode)
        }

    def _operation(self, node: OperationDefinitionNode, ast: DocumentNode) -> Operation:
        fragments = fragments_of(ast)
        cost, lookups = analyze_cost(node, fragments, self._schema)
        introspection = IntrospectionCount(self._schema, fragments, self._limits)
        alone = introspection.count(node)
        cost += QueryCost(introspection.objects)
        return Operation(node.operation, cost, lookups, introspection.objects > 0, alone)
