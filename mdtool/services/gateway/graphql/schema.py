"""The schema, read from its file, and the check that there is something behind all of it."""

from __future__ import annotations

from collections.abc import Collection
from importlib import resources

from graphql import (
    GraphQLObjectType,
    GraphQLSchema,
    build_schema,
    is_introspection_type,
    is_non_null_type,
)

from mdtool.services.gateway.graphql.rows import READS


def sdl() -> str:
    """Return the text of `schema.graphql`."""
    return resources.files(__package__).joinpath("schema.graphql").read_text("utf-8")


def load_schema() -> GraphQLSchema:
    """Return the schema."""
    return build_schema(sdl())


def check_schema(
    schema: GraphQLSchema, queries: Collection[str], subscriptions: Collection[str]
) -> None:
    """Raise TypeError where the schema has fields that nothing answers, or the other way round.

    Parameters
    ----------
    schema : GraphQLSchema
    queries, subscriptions : collection of str
        The fields of `Query` and `Subscription` that are answered. Those of `Query` must all be
        nullable, so that what fails takes nothing else with it.
    """
    answered = {"Query": queries, "Subscription": subscriptions, **READS}
    for name, of in schema.type_map.items():
        if isinstance(of, GraphQLObjectType) and not is_introspection_type(of):
            wrong = set(of.fields) ^ set(answered.pop(name, ()))
            if wrong:
                raise TypeError(f"schema and code disagree about {name}: {', '.join(wrong)}")
    if answered:
        raise TypeError(f"the schema has no {', '.join(answered)}")
    assert schema.query_type is not None
    for name, field in schema.query_type.fields.items():
        if is_non_null_type(field.type):
            raise TypeError(f"Query.{name} cannot be null")
