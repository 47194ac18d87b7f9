"""How large a document may be: looked at before it is validated, which takes longer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionNode,
)

MAX_CHARS: Final = 20_000
MAX_TOKENS: Final = 1_000
"""Validation takes 0.3 s for the worst document of so many, and most of them 10 ms."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may ask at once.

    Attributes
    ----------
    depth : int
        Levels of nested fields.
    aliases : int
        Fields of a document that are given another name.
    complexity : int
        Fields of a response, at most, each element of a list counted.
    """

    depth: int
    aliases: int
    complexity: int


def check_size(document: DocumentNode, limits: Limits) -> None:
    """Raise GraphQLError where a document, which need not be valid, nests or renames too much."""
    walk = _Walk(document, limits)
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            walk.fields(definition.selection_set.selections, 1, is_new=True)


class _Walk:
    """Looks at each definition's names once, and into each fragment as deep as it is ever used."""

    def __init__(self, document: DocumentNode, limits: Limits) -> None:
        self._limits = limits
        self._fragments = {
            definition.name.value: definition
            for definition in document.definitions
            if isinstance(definition, FragmentDefinitionNode)
        }
        self._deepest: dict[str, int] = {}
        self._aliases = 0

    def fields(self, nodes: Iterable[SelectionNode], depth: int, *, is_new: bool) -> None:
        """Look at the fields of a level."""
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
