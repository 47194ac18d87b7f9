"""Operations made ready to run: what each of their fields asks for, and how rows become JSON.

An operation that was parsed and validated is turned into templates and the functions that fill
them, once for all requests with the same text. Graphql-core takes five times as long to execute it;
this keeps every decimal of prices, and lets subscribers share what was encoded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLIncludeDirective,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLSkipDirective,
    InlineFragmentNode,
    SelectionNode,
    SelectionSetNode,
    get_argument_values,
    get_directive_values,
    get_named_type,
    is_leaf_type,
)
from graphql.execution.values import VariableValues

from mdtool.services.gateway.graphql.rows import READS, Read

Encode = Callable[[Any], str]
"""Returns the JSON of a row, of rows, or of None."""

TYPENAME: Final = "__typename"
_json_of: Final = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, eq=False, slots=True)
class RootField:
    """A field of an operation's root.

    Attributes
    ----------
    key : str
        Under which the response has it.
    name : str
        In the schema.
    nodes : sequence of FieldNode
        Where it stands in the document; the first of them has its arguments.
    definition : GraphQLField or None
        None for what is not of the schema: `__typename` and introspection.
    arguments : mapping or None
        Its arguments by name, None where they depend on variables.
    encode : callable
        How what it resolves to becomes JSON.
    row_cost : int
        How many fields each of its rows has.
    """

    key: str
    name: str
    nodes: Sequence[FieldNode]
    definition: GraphQLField | None
    arguments: Mapping[str, Any] | None
    encode: Encode
    row_cost: int

    def arguments_of(self, variables: VariableValues | None) -> Mapping[str, Any]:
        """Return the arguments by name.

        Raises
        ------
        GraphQLError
            When a variable has no value that the argument takes.
        """
        if self.arguments is not None:
            return self.arguments
        assert self.definition is not None
        return get_argument_values(self.definition, self.nodes[0], variables)

    def response_of(self, row: Any) -> bytes:
        """Return the response that has a row of this field and nothing else."""
        return f'{{"data":{{"{self.key}":{self.encode(row)}}}}}'.encode()


class Planner:
    """Plans operations of one document.

    Parameters
    ----------
    fragments : mapping
        The document's, by name.
    variables : VariableValues or None
        The operation's; `@skip` and `@include` are decided by them here and now.
    """

    def __init__(
        self, fragments: Mapping[str, FragmentDefinitionNode], variables: VariableValues | None
    ) -> None:
        self._fragments = fragments
        self._variables = variables

    def plan(
        self, root: GraphQLObjectType, selections: SelectionSetNode, *, has_variables: bool
    ) -> tuple[RootField, ...]:
        """Return the fields of an operation, in the order in which the response has them."""
        return tuple(
            self._root_field(root, key, nodes, has_variables=has_variables)
            for key, nodes in self._collected(root, [selections]).items()
        )

    def _root_field(
        self, root: GraphQLObjectType, key: str, nodes: list[FieldNode], *, has_variables: bool
    ) -> RootField:
        name = nodes[0].name.value
        definition = root.fields.get(name)
        if definition is None:
            return RootField(key, name, nodes, None, {}, _json_of, 1)
        encode, row_cost = self._encoder(definition.type, nodes)
        arguments = None if has_variables else get_argument_values(definition, nodes[0])
        return RootField(key, name, nodes, definition, arguments, encode, row_cost)

    def _encoder(self, of: GraphQLOutputType, nodes: Iterable[FieldNode]) -> tuple[Encode, int]:
        """Return how values of a type become JSON, and how many fields each takes."""
        if is_leaf_type(get_named_type(of)):
            return _json_of, 1
        if isinstance(of, GraphQLNonNull):
            return self._encoder_of_some(of.of_type, nodes)
        encode, cost = self._encoder_of_some(of, nodes)
        return lambda value: "null" if value is None else encode(value), cost

    def _encoder_of_some(
        self, of: GraphQLOutputType, nodes: Iterable[FieldNode]
    ) -> tuple[Encode, int]:
        if isinstance(of, GraphQLList):
            encode, cost = self._encoder(of.of_type, nodes)
            return lambda values: f"[{','.join(map(encode, values))}]", cost
        assert isinstance(of, GraphQLObjectType)
        return self._encoder_of_rows(of, nodes)

    def _encoder_of_rows(
        self, of: GraphQLObjectType, nodes: Iterable[FieldNode]
    ) -> tuple[Encode, int]:
        members: list[str] = []
        reads: list[Read] = []
        cost = 0
        selections = [node.selection_set for node in nodes if node.selection_set]
        for key, same in self._collected(of, selections).items():
            name = same[0].name.value
            if name == TYPENAME:
                members.append(f'"{key}":"{of.name}"')
                continue
            read, field_cost = self._reader(of, name, same)
            members.append(f'"{key}":%s')
            reads.append(read)
            cost += field_cost
        template = "{" + ",".join(members) + "}"
        return lambda row: template % tuple([read(row) for read in reads]), cost

    def _reader(self, of: GraphQLObjectType, name: str, nodes: list[FieldNode]) -> tuple[Read, int]:
        """Return what reads the JSON of a field off a row."""
        read = READS[of.name][name]
        if nodes[0].selection_set is None:
            return read, 1
        encode, cost = self._encoder(of.fields[name].type, nodes)
        return lambda row: encode(read(row)), 1 + cost

    def _collected(
        self, of: GraphQLObjectType, selections: Iterable[SelectionSetNode]
    ) -> dict[str, list[FieldNode]]:
        """Return the fields that are asked of a type by their keys, with fragments resolved."""
        collected: dict[str, list[FieldNode]] = {}
        spread: set[str] = set()

        def collect(nodes: Iterable[SelectionNode]) -> None:
            for node in filter(self._is_included, nodes):
                if isinstance(node, FieldNode):
                    key = node.alias.value if node.alias else node.name.value
                    collected.setdefault(key, []).append(node)
                    continue
                if isinstance(node, FragmentSpreadNode):
                    if node.name.value in spread:
                        continue
                    spread.add(node.name.value)
                fragment = self._fragment(node)
                condition = fragment.type_condition
                if condition is None or condition.name.value == of.name:
                    collect(fragment.selection_set.selections)

        for selection in selections:
            collect(selection.selections)
        return collected

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
