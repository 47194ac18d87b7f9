"""Documents: parsed, limited, validated and measured once for all requests with the same text."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from graphql import (
    DirectiveNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLField,
    GraphQLIncludeDirective,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLSchema,
    GraphQLSkipDirective,
    GraphQLSyntaxError,
    InlineFragmentNode,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    OperationType,
    SelectionNode,
    SelectionSetNode,
    VariableNode,
    Visitor,
    get_directive_values,
    get_named_type,
    parse,
    specified_rules,
    validate,
    visit,
)
from graphql.execution.values import VariableValues

from mdtool.services.gateway.protocols.graphql.errors import (
    INVALID,
    MAX_ERRORS,
    SYNTAX,
    TOO_COMPLEX,
    DocumentError,
)

MAX_CHARS: Final = 20_000
MAX_TOKENS: Final = 1_000
"""Validation takes 0.3 s for the worst document of so many, and 10 ms for most of them."""
TYPENAME: Final = "__typename"
_MAX_CONDITIONS: Final = 16
_CACHED_CHARS: Final = 1 << 18
"""Characters of all cached documents together; parsed, they take up to 200 times the memory."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an operation may request.

    Attributes
    ----------
    depth : int
        Levels of nested fields.
    aliases : int
        Fields of a document that have an alias.
    complexity : int
        Fields of a response, at most, each element of a list counted.
    """

    depth: int
    aliases: int
    complexity: int


@dataclass(frozen=True, slots=True)
class RootField:
    """A field of an operation's root, with what is selected of it.

    Attributes
    ----------
    key : str
        Its name in the response.
    name : str
        Its name in the schema.
    node : FieldNode
        Has its arguments.
    definition : GraphQLField or None
        None for `__typename` and introspection.
    selection : str
        What is selected of its rows, written the same for equal selections.
    row_cost : int
        How many fields each of its rows has.
    """

    key: str
    name: str
    node: FieldNode
    definition: GraphQLField | None
    selection: str
    row_cost: int


class Operation:
    """An operation of a valid document.

    Parameters
    ----------
    schema : GraphQLSchema
    document : DocumentNode
    node : OperationDefinitionNode
        Of that document.

    Attributes
    ----------
    document : DocumentNode
    name : str or None
    is_subscription : bool
    variable_definitions : tuple of VariableDefinitionNode
    """

    def __init__(
        self, schema: GraphQLSchema, document: DocumentNode, node: OperationDefinitionNode
    ) -> None:
        root = schema.get_root_type(node.operation)
        assert root is not None
        conditions = _Conditions()
        visit(document, conditions)
        self.document = document
        self.name = node.name.value if node.name else None
        self.is_subscription = node.operation is OperationType.SUBSCRIPTION
        self.variable_definitions = node.variable_definitions or ()
        self._root = root
        self._selections = node.selection_set
        self._conditions = sorted(conditions.variables)
        self._fields: dict[tuple[Any, ...], tuple[RootField, ...]] = {}

    def fields(self, variables: VariableValues) -> tuple[RootField, ...]:
        """Return the fields of the root; equal conditions have the same."""
        key = tuple(map(variables.coerced.get, self._conditions))
        fields = self._fields.get(key)
        if fields is None:
            if len(self._fields) == _MAX_CONDITIONS:
                self._fields.clear()
            reader = _SelectionReader(_fragments_of(self.document), variables)
            fields = self._fields[key] = reader.root_fields(self._root, self._selections)
        return fields


class Document:
    """A valid document.

    Parameters
    ----------
    schema : GraphQLSchema
    node : DocumentNode
        Valid by that schema.
    """

    def __init__(self, schema: GraphQLSchema, node: DocumentNode) -> None:
        self._operations = {
            definition.name.value if definition.name else None: Operation(schema, node, definition)
            for definition in node.definitions
            if isinstance(definition, OperationDefinitionNode)
        }

    def operation(self, name: str | None) -> Operation:
        """Return the operation of a name, or the only one.

        Raises
        ------
        DocumentError
            When there is none of that name, or several and no name.
        """
        operations = self._operations
        if not name and len(operations) == 1:
            return next(iter(operations.values()))
        operation = operations.get(name) if name else None
        if operation is None:
            message = f"operationName: no operation {name}" if name else "operationName: missing"
            raise DocumentError([GraphQLError(message)], INVALID)
        return operation


class Documents:
    """The documents of the latest requests, by their text.

    Parameters
    ----------
    schema : GraphQLSchema
    limits : Limits
    may_introspect : bool
        Whether clients may read the schema.
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
            When it is too large, or not valid.
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
            max_errors=MAX_ERRORS,
            hide_suggestions=not self._may_introspect,
        )
        if errors:
            raise DocumentError(errors, INVALID)
        return node


def check_size(document: DocumentNode, limits: Limits) -> None:
    """Raise GraphQLError where a document, valid or not, has too many levels or aliases.

    It precedes validation, which takes longer.
    """
    walk = _SizeWalk(document, limits)
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            walk.fields(definition.selection_set.selections, 1, is_new=True)


def _fragments_of(document: DocumentNode) -> dict[str, FragmentDefinitionNode]:
    return {
        definition.name.value: definition
        for definition in document.definitions
        if isinstance(definition, FragmentDefinitionNode)
    }


class _SizeWalk:
    """Counts each definition's aliases once, and follows each fragment to its deepest use."""

    def __init__(self, document: DocumentNode, limits: Limits) -> None:
        self._limits = limits
        self._fragments = _fragments_of(document)
        self._deepest: dict[str, int] = {}
        self._aliases = 0

    def fields(self, nodes: Iterable[SelectionNode], depth: int, *, is_new: bool) -> None:
        """Check the fields of a level; those that are not new were counted before."""
        if depth > self._limits.depth:
            raise GraphQLError(f"fields are nested more than {self._limits.depth} levels deep")
        for node in nodes:
            if isinstance(node, FragmentSpreadNode):
                self._spread(node.name.value, depth)
            elif isinstance(node, InlineFragmentNode):
                self.fields(node.selection_set.selections, depth, is_new=is_new)
            elif isinstance(node, FieldNode):
                if is_new and node.alias:
                    self._count_alias(node)
                if node.selection_set:
                    self.fields(node.selection_set.selections, depth + 1, is_new=is_new)

    def _spread(self, name: str, depth: int) -> None:
        deepest = self._deepest.get(name, 0)
        if name in self._fragments and depth > deepest:
            self._deepest[name] = depth
            selections = self._fragments[name].selection_set.selections
            self.fields(selections, depth, is_new=deepest == 0)

    def _count_alias(self, node: FieldNode) -> None:
        self._aliases += 1
        if self._aliases > self._limits.aliases:
            raise GraphQLError(f"there are more than {self._limits.aliases} aliases", node)


class _Conditions(Visitor):
    """Finds the variables that decide about `@skip` and `@include`."""

    def __init__(self) -> None:
        super().__init__()
        self.variables: set[str] = set()

    def enter_directive(self, node: DirectiveNode, *_: Any) -> None:
        for argument in node.arguments or ():
            if isinstance(argument.value, VariableNode):
                self.variables.add(argument.value.name.value)


class _SelectionReader:
    """Reads what an operation selects, with fragments merged and conditions decided."""

    def __init__(
        self, fragments: Mapping[str, FragmentDefinitionNode], variables: VariableValues
    ) -> None:
        self._fragments = fragments
        self._variables = variables

    def root_fields(
        self, root: GraphQLObjectType, selections: SelectionSetNode
    ) -> tuple[RootField, ...]:
        """Return the fields of an operation in the response's order."""
        fields = []
        for key, nodes in self._merged(root, [selections]).items():
            name = nodes[0].name.value
            definition = root.fields.get(name)
            selection, cost = "", 1
            if definition is not None:
                selection, cost = self._selected(definition.type, nodes)
            fields.append(RootField(key, name, nodes[0], definition, selection, cost))
        return tuple(fields)

    def _selected(self, of: GraphQLOutputType, nodes: Iterable[FieldNode]) -> tuple[str, int]:
        """Return what is selected of a row as a text, and how many fields that is."""
        row_type = get_named_type(of)
        if not isinstance(row_type, GraphQLObjectType):
            return "", 1
        texts, cost = [], 0
        sets = [node.selection_set for node in nodes if node.selection_set]
        for key, same in self._merged(row_type, sets).items():
            name = same[0].name.value
            text = f"{key}:{name}"
            if name != TYPENAME:
                cost += 1
                if same[0].selection_set:
                    inner, inner_cost = self._selected(row_type.fields[name].type, same)
                    text += inner
                    cost += inner_cost
            texts.append(text)
        return f"{{{' '.join(texts)}}}", cost

    def _merged(
        self, of: GraphQLObjectType, selections: Iterable[SelectionSetNode]
    ) -> dict[str, list[FieldNode]]:
        """Return the nodes of each field of a type, by its name in the response."""
        merged: dict[str, list[FieldNode]] = {}
        spread: set[str] = set()

        def merge(nodes: Iterable[SelectionNode]) -> None:
            for node in filter(self._is_included, nodes):
                if isinstance(node, FieldNode):
                    key = node.alias.value if node.alias else node.name.value
                    merged.setdefault(key, []).append(node)
                    continue
                if isinstance(node, FragmentSpreadNode):
                    if node.name.value in spread:
                        continue
                    spread.add(node.name.value)
                fragment = self._fragment(node)
                condition = fragment.type_condition
                if condition is None or condition.name.value == of.name:
                    merge(fragment.selection_set.selections)

        for selection in selections:
            merge(selection.selections)
        return merged

    def _fragment(self, node: SelectionNode) -> FragmentDefinitionNode | InlineFragmentNode:
        if isinstance(node, FragmentSpreadNode):
            return self._fragments[node.name.value]
        assert isinstance(node, InlineFragmentNode)
        return node

    def _is_included(self, node: SelectionNode) -> bool:
        if not node.directives:
            return True
        skip = get_directive_values(GraphQLSkipDirective, node, self._variables)
        include = get_directive_values(GraphQLIncludeDirective, node, self._variables)
        return not (skip and skip["if"]) and (include is None or bool(include["if"]))
