"""Parses, bounds, validates and prices documents; caches the valid ones."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from cachetools import LRUCache
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    parse,
    specified_rules,
    validate,
)
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from gateway.graphql.admission.cost import QueryCost, analyze_cost
from gateway.graphql.admission.limits import Limits, check_limits, fragments_of
from gateway.graphql.errors import request_error

# graphql-core's rules and the two that Strawberry adds.
VALIDATION_RULES = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a valid document; *introspects* when it selects ``__schema`` or ``__type``."""

    type: OperationType
    cost: QueryCost
    introspects: bool


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
            raise request_error("OPERATION_RESOLUTION_FAILURE", f'No operation is named "{name}".')
        return self.operations[name]


class InvalidDocument(Exception):
    """The document is invalid for the reasons in *errors*."""

    def __init__(self, errors: list[GraphQLError]) -> None:
        super().__init__()
        self.errors = errors


class DocumentCache:
    """Prepares documents for *schema* within *limits*; caches the *capacity* last used valid ones.

    Invalid documents are not cached, so that a stream of them evicts nothing.
    """

    def __init__(self, schema: GraphQLSchema, limits: Limits, *, capacity: int = 256) -> None:
        self._schema = schema
        self._limits = limits
        self._documents: LRUCache[str, Document] = LRUCache(capacity)

    async def get_or_prepare(self, text: str, *, suggestions: bool) -> Document:
        """Return the document of *text*, or raise `InvalidDocument`, with *suggestions* in its errors or without."""
        document = self._documents.get(text)
        if document is None:
            document = self._documents[text] = await self._prepare(text, suggestions=suggestions)
        return document

    async def _prepare(self, text: str, *, suggestions: bool) -> Document:
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
        return Document(ast, _operations(ast, self._schema))

    def _parse(self, text: str) -> DocumentNode:
        limits = self._limits
        try:
            return parse(text, max_tokens=limits.tokens, max_source_length=limits.characters)
        except GraphQLError as error:
            error.extensions = {"code": "GRAPHQL_PARSE_FAILED"}
            raise InvalidDocument([error]) from None


def _operations(ast: DocumentNode, schema: GraphQLSchema) -> dict[str | None, Operation]:
    fragments = fragments_of(ast)
    return {
        node.name.value if node.name else None: Operation(
            node.operation,
            analyze_cost(node, fragments, schema),
            _introspects(node.selection_set, fragments),
        )
        for node in ast.definitions
        if isinstance(node, OperationDefinitionNode)
    }


def _introspects(
    selected: SelectionSetNode, fragments: Mapping[str, FragmentDefinitionNode]
) -> bool:
    """True if the root selects `__schema` or `__type`, which exist only there."""
    for node in selected.selections:
        if isinstance(node, FieldNode):
            if node.name.value in ("__schema", "__type"):
                return True
        elif isinstance(node, FragmentSpreadNode):
            if _introspects(fragments[node.name.value].selection_set, fragments):
                return True
        elif isinstance(node, InlineFragmentNode) and _introspects(node.selection_set, fragments):
            return True
    return False
