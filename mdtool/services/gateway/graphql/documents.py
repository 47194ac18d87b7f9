"""Documents: parsed, checked, validated and planned once for all requests with the same text."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from graphql import (
    DirectiveNode,
    DocumentNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    OperationType,
    VariableNode,
    Visitor,
    get_variable_values,
    parse,
    specified_rules,
    validate,
    visit,
)
from graphql.execution.values import VariableValues

from mdtool.services.gateway.graphql.errors import (
    BAD_INPUT,
    INVALID,
    SYNTAX,
    TOO_COMPLEX,
    DocumentError,
)
from mdtool.services.gateway.graphql.limits import MAX_CHARS, MAX_TOKENS, Limits, check_size
from mdtool.services.gateway.graphql.plan import Planner, RootField

_MAX_ERRORS: Final = 10
_MAX_PLANS: Final = 16
_CACHED_CHARS: Final = 1 << 18
"""Of all documents together; what they become takes up to 200 times the memory."""


class Operation:
    """An operation of a valid document.

    Parameters
    ----------
    schema : GraphQLSchema
    node : OperationDefinitionNode
    fragments : mapping
        The document's, by name.
    conditions : sequence of str
        The variables by which `@skip` and `@include` decide anywhere in the document.
    """

    def __init__(
        self,
        schema: GraphQLSchema,
        node: OperationDefinitionNode,
        fragments: Mapping[str, FragmentDefinitionNode],
        conditions: tuple[str, ...],
    ) -> None:
        root = schema.get_root_type(node.operation)
        assert root is not None
        self.node = node
        self.is_subscription = node.operation is OperationType.SUBSCRIPTION
        self.fragments = fragments
        self._schema = schema
        self._root = root
        self._conditions = conditions
        self._plans: dict[tuple[Any, ...], tuple[RootField, ...]] = {}

    def variables(self, given: Mapping[str, Any]) -> VariableValues | None:
        """Return the operation's variables as their types have them, None where it has none.

        Raises
        ------
        DocumentError
            When a value is missing or of the wrong type.
        """
        definitions = self.node.variable_definitions
        if not definitions:
            return None
        values = get_variable_values(self._schema, definitions, dict(given), _MAX_ERRORS)
        if isinstance(values, list):
            raise DocumentError(values, BAD_INPUT)
        return values

    def fields(self, variables: VariableValues | None) -> tuple[RootField, ...]:
        """Return what the operation asks for, the same objects for the same conditions."""
        key: tuple[Any, ...] = ()
        if variables is not None:
            key = tuple(map(variables.coerced.get, self._conditions))
        fields = self._plans.get(key)
        if fields is None:
            if len(self._plans) == _MAX_PLANS:
                self._plans.clear()
            planner = Planner(self.fragments, variables)
            fields = self._plans[key] = planner.plan(
                self._root, self.node.selection_set, has_variables=variables is not None
            )
        return fields


class Document:
    """A valid document.

    Parameters
    ----------
    schema : GraphQLSchema
    node : DocumentNode
        Of that schema.
    """

    def __init__(self, schema: GraphQLSchema, node: DocumentNode) -> None:
        fragments = {
            definition.name.value: definition
            for definition in node.definitions
            if isinstance(definition, FragmentDefinitionNode)
        }
        conditions = _Conditions()
        visit(node, conditions)
        self._operations = {
            definition.name.value if definition.name else None: Operation(
                schema, definition, fragments, tuple(sorted(conditions.variables))
            )
            for definition in node.definitions
            if isinstance(definition, OperationDefinitionNode)
        }

    def operation(self, name: str | None) -> Operation:
        """Return the operation of a name, or the only one there is.

        Raises
        ------
        DocumentError
            When there is no such, or no name and several.
        """
        operations = self._operations
        if not name and len(operations) == 1:
            return next(iter(operations.values()))
        operation = operations.get(name) if name else None
        if operation is None:
            message = f"there is no operation named {name}" if name else "operationName: missing"
            raise DocumentError([GraphQLError(message)], INVALID)
        return operation


class Documents:
    """The documents that clients sent most recently, by their text.

    Parameters
    ----------
    schema : GraphQLSchema
    limits : Limits
    may_introspect : bool
        Whether clients may ask what the schema is.
    """

    def __init__(self, schema: GraphQLSchema, limits: Limits, *, may_introspect: bool) -> None:
        self._schema = schema
        self._limits = limits
        self._may_introspect = may_introspect
        self._rules = list(specified_rules)
        if not may_introspect:
            self._rules.append(NoSchemaIntrospectionCustomRule)
        self._documents: OrderedDict[str, Document] = OrderedDict()
        self._chars = 0

    def __len__(self) -> int:
        return len(self._documents)

    def get(self, text: str) -> Document:
        """Return the document of a text.

        Raises
        ------
        DocumentError
            When it is too large, or not of the schema.
        """
        document = self._documents.get(text)
        if document is None:
            document = self._documents[text] = Document(self._schema, self._validated(text))
            self._chars += len(text)
            while self._chars > _CACHED_CHARS:
                self._chars -= len(self._documents.popitem(last=False)[0])
        else:
            self._documents.move_to_end(text)
        return document

    def _validated(self, text: str) -> DocumentNode:
        try:
            node = parse(text, max_tokens=MAX_TOKENS, max_source_length=MAX_CHARS)
        except GraphQLSyntaxError as error:
            raise DocumentError([error], SYNTAX) from error
        try:
            check_size(node, self._limits)
        except GraphQLError as error:
            raise DocumentError([error], TOO_COMPLEX) from error
        errors = validate(
            self._schema,
            node,
            self._rules,
            max_errors=_MAX_ERRORS,
            hide_suggestions=not self._may_introspect,
        )
        if errors:
            raise DocumentError(errors, INVALID)
        return node


class _Conditions(Visitor):
    """Finds the variables that directives are given."""

    def __init__(self) -> None:
        super().__init__()
        self.variables: set[str] = set()

    def enter_directive(self, node: DirectiveNode, *_: Any) -> None:
        for argument in node.arguments or ():
            if isinstance(argument.value, VariableNode):
                self.variables.add(argument.value.name.value)
