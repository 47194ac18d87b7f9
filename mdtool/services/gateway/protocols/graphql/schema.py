"""The schema: fixed types from `schema.graphql`, and those of further feeds from the table.

Rows are found before an operation is executed: the root value has them by response key. So
execution needs no I/O, and is the same for queries and for each update of a subscription.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from operator import attrgetter
from typing import Any, Final

from graphql import (
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLResolveInfo,
    GraphQLSchema,
    build_schema,
    extend_schema,
    get_named_type,
    is_introspection_type,
    is_non_null_type,
    parse,
)

from mdtool.core.units import NS_PER_MS, UNDEF_PRICE, format_price
from mdtool.services.gateway.fields import Field, Kind, value_of
from mdtool.services.gateway.table import FeedRow, Option

Read = Callable[[Any, GraphQLResolveInfo[Any]], Any]
"""A resolver of a field of a row."""

STORED_SYMBOL: Final = (
    Field("symbol", Kind.TEXT, "The symbol."),
    Field("trade_count", Kind.SIZE, "How many trades."),
    Field("last_trade_at", Kind.TIME, "When the latest took place.", source="last_trade_at_ns"),
)
"""The fields of the type `Symbol`, which is no feed's."""
_RENAMED: Final = {"Bar": {"timestamp": "start", "count": "trades"}, "Trade": {"volume": "size"}}
"""Fields of fixed types and what the table calls them."""
_IN_MILLISECONDS: Final = {"Aggregate", "Bar", "Book", "Level", "Quote"}
"""Fixed types whose times are milliseconds since the epoch."""
_NEXT: Final = "nextCursor"
"""The field of a page that no row has."""
_SYMBOL: Final = '"A symbol." symbol: String!'
_SESSION: Final = '"`previous` for the session before, or its date." session: String'
_SYMBOL_OR_ALL: Final = '"A symbol, or `*` for every symbol." symbol: String!'
_PAGE_ARGUMENTS: Final = """
  "At most so many, from 1 to 1000." limit: Int = 100
  "`nextCursor` of the page before, or a time in milliseconds: only rows before that time."
  before: String
"""
_LEAVES: Final = {
    Kind.TEXT: "String",
    Kind.PRICE: "String",
    Kind.SIZE: "String",
    Kind.COUNT: "Int",
    Kind.TIME: "String",
    Kind.FLAG: "Boolean",
}


class Number(str):
    """A `Float` with all its decimals: the number in JSON, which Python's floats would round."""

    __slots__ = ()


def make_schema(rows: Sequence[FeedRow]) -> GraphQLSchema:
    """Return the schema of the feeds of a table.

    Raises
    ------
    TypeError
        When a fixed type has a field that the table does not.
    """
    text = resources.files(__package__).joinpath("schema.graphql").read_text("utf-8")
    schema = build_schema(text)
    if further := "\n".join(_further(schema, rows)):
        schema = extend_schema(schema, parse(further))
    row_types: Mapping[str, Sequence[Field]] = {
        **{row.graphql_type: row.fields for row in rows},
        "Symbol": STORED_SYMBOL,
    }
    for name, fields in row_types.items():
        _connect_rows(_object_type(schema, name), fields)
    for root in (schema.query_type, schema.subscription_type):
        assert root is not None
        for field in root.fields.values():
            field.resolve = _read_root
            found = get_named_type(field.type)
            if isinstance(found, GraphQLObjectType) and _NEXT in found.fields:
                _connect_page(found)
    _check(schema)
    return schema


def _further(schema: GraphQLSchema, rows: Iterable[FeedRow]) -> Iterable[str]:
    """Yield the definitions of feeds that `schema.graphql` lacks."""
    assert schema.query_type is not None
    assert schema.subscription_type is not None
    for row in rows:
        name, of = row.graphql_field, row.graphql_type
        about = json.dumps(row.about)
        if of not in schema.type_map:
            yield from _type_definitions(of, about, row.fields)
        option = () if row.option is None else (_option_definition(row.option),)
        if name not in schema.subscription_type.fields:
            arguments = " ".join((_SYMBOL_OR_ALL, *option))
            result = of if row.has_events else f"{of}!"
            yield f"extend type Subscription {{ {about} {name}({arguments}): {result} }}"
        if name not in schema.query_type.fields:
            arguments = " ".join((_SYMBOL, *option, *[_SESSION] * row.has_past))
            result = f"[{of}!]" if row.has_events else of
            if row.has_history:
                arguments += _PAGE_ARGUMENTS
                result = f"{name[0].upper()}{name[1:]}Page"
                members = f"{name}: [{of}!]! {_NEXT}: String"
                yield f'"Rows that follow each other in time." type {result} {{ {members} }}'
            yield f"extend type Query {{ {about} {name}({arguments}): {result} }}"


def _type_definitions(name: str, about: str, fields: Iterable[Field]) -> Iterable[str]:
    members = []
    for field in fields:
        if field.kind is Kind.ROWS:
            inner = f"{name}{field.name.title().replace('_', '')}"
            yield from _type_definitions(inner, json.dumps(field.about), field.fields)
            of = f"[{inner}!]"
        else:
            of = _LEAVES[field.kind]
        end = "" if field.is_optional else "!"
        members.append(f"{json.dumps(field.about)} {_camel(field.name)}: {of}{end}")
    yield f"{about} type {name} {{ {' '.join(members)} }}"


def _option_definition(option: Option) -> str:
    about, default = json.dumps(option.about), json.dumps(option.default)
    of = "Int" if option.schema["type"] == "integer" else "String"
    return f"{about} {option.name}: {of} = {default}"


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def _object_type(schema: GraphQLSchema, name: str) -> GraphQLObjectType:
    of = schema.type_map[name]
    assert isinstance(of, GraphQLObjectType)
    return of


def _connect_rows(of: GraphQLObjectType, fields: Iterable[Field]) -> None:
    """Have the fields of a type read off a feed's rows."""
    by_name = {_camel(field.name): field for field in fields}
    renamed = _RENAMED.get(of.name, {})
    for name, definition in of.fields.items():
        field = by_name.get(renamed.get(name, name))
        if field is None:
            raise TypeError(f"{of.name}.{name}: not a field of the table")
        definition.resolve = _reader(field, definition.type, of.name in _IN_MILLISECONDS)
        if field.kind is Kind.ROWS:
            inner = get_named_type(definition.type)
            assert isinstance(inner, GraphQLObjectType)
            _connect_rows(inner, field.fields)


def _reader(field: Field, of: GraphQLOutputType, is_in_ms: bool) -> Read:
    get = attrgetter(field.attribute)
    leaf = get_named_type(of).name
    if field.kind is Kind.ROWS:
        return lambda row, _: get(row)
    if leaf == "Float":
        return lambda row, _: _number(get(row))
    if field.kind is Kind.TIME and is_in_ms:
        return lambda row, _: str(get(row) // NS_PER_MS)
    if field.kind is Kind.COUNT and leaf == "String":
        return lambda row, _: str(get(row))
    return lambda row, _: value_of(field, row)


def _number(price: int | None) -> Number | None:
    return None if price is None or price == UNDEF_PRICE else Number(format_price(price))


def _read_root(rows: Mapping[str, Any], info: GraphQLResolveInfo[Any], **_arguments: Any) -> Any:
    """Return what was found for a field; graphql-core reports an exception by its path."""
    return rows[str(info.path.key)]


def _connect_page(of: GraphQLObjectType) -> None:
    """Have the fields of a page read off the rows of a history."""
    for name, field in of.fields.items():
        field.resolve = _read_next if name == _NEXT else _read_rows


def _read_rows(page: Any, _info: GraphQLResolveInfo[Any]) -> Any:
    return page.rows


def _read_next(page: Any, _info: GraphQLResolveInfo[Any]) -> Any:
    return page.next


def _check(schema: GraphQLSchema) -> None:
    for of in schema.type_map.values():
        if isinstance(of, GraphQLObjectType) and not is_introspection_type(of):
            for name, field in of.fields.items():
                if field.resolve is None:
                    raise TypeError(f"{of.name}.{name}: no feed has it")
    assert schema.query_type is not None
    for name, field in schema.query_type.fields.items():
        if is_non_null_type(field.type):
            raise TypeError(f"Query.{name}: not nullable, so that its error would hide all data")
