"""A document's text, parsed, bounded, validated and priced; the good ones are kept."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

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

from gateway.graphql.admission.cost import Price, price_of
from gateway.graphql.admission.limits import Limits, check_limits, fragments_of
from gateway.graphql.errors import request_error
from gateway.graphql.execution.plan import Plans, deciding_variables

# The two rules that Strawberry adds to graphql-core's, because its schema says more.
RULES = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a valid document; *introspects* when it asks for the schema itself."""

    kind: OperationType
    price: Price
    introspects: bool
    plans: Plans


@dataclass(frozen=True, slots=True)
class Document:
    """A valid document: what graphql-core runs, and what admitting its operations takes to know."""

    ast: DocumentNode
    operations: Mapping[str | None, Operation]

    def operation(self, name: str | None) -> Operation:
        """The operation to run; a GraphQLError when *name* does not say which."""
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


class Invalid(Exception):
    """The document is not valid; *errors* say where."""

    def __init__(self, errors: list[GraphQLError]) -> None:
        super().__init__()
        self.errors = errors


class Documents:
    """Reads documents for *schema* within *limits*, and keeps the *kept* last used valid ones.

    Only valid ones are kept, so that a stream of nonsense pushes nothing out.
    """

    def __init__(self, schema: GraphQLSchema, limits: Limits, *, kept: int = 256) -> None:
        self._schema = schema
        self._limits = limits
        self._kept = kept
        self._documents: OrderedDict[str, Document] = OrderedDict()

    async def read(self, text: str, *, suggestions: bool) -> Document:
        """The document that *text* is, or `Invalid`; *suggestions*: whether errors may name the schema."""
        document = self._documents.get(text)
        if document is None:
            document = self._documents[text] = await self._prepare(text, suggestions=suggestions)
            if len(self._documents) > self._kept:
                self._documents.popitem(last=False)
        self._documents.move_to_end(text)
        return document

    async def _prepare(self, text: str, *, suggestions: bool) -> Document:
        ast = self._parse(text)
        check_limits(ast, self._limits)
        # The worst that the limits let through takes 10 ms to here and 20 ms from here on.
        await asyncio.sleep(0)
        errors = validate(
            self._schema,
            ast,
            RULES,
            max_errors=self._limits.errors,
            hide_suggestions=not suggestions,
        )
        if errors:
            for error in errors:
                error.extensions = {"code": "GRAPHQL_VALIDATION_FAILED", **(error.extensions or {})}
            raise Invalid(errors)
        return Document(ast, _operations(ast, self._schema))

    def _parse(self, text: str) -> DocumentNode:
        limits = self._limits
        try:
            return parse(text, max_tokens=limits.tokens, max_source_length=limits.characters)
        except GraphQLError as error:
            error.extensions = {"code": "GRAPHQL_PARSE_FAILED"}
            raise Invalid([error]) from None


def _operations(ast: DocumentNode, schema: GraphQLSchema) -> dict[str | None, Operation]:
    fragments, deciding = fragments_of(ast), deciding_variables(ast)
    return {
        node.name.value if node.name else None: Operation(
            node.operation,
            price_of(node, fragments, schema),
            _introspects(node.selection_set, fragments),
            Plans(deciding),
        )
        for node in ast.definitions
        if isinstance(node, OperationDefinitionNode)
    }


def _introspects(
    selected: SelectionSetNode, fragments: Mapping[str, FragmentDefinitionNode]
) -> bool:
    """Whether the root asks for `__schema` or `__type`, which nothing below it can."""
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
