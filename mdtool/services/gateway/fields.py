"""The fields of a feed's rows, from which JSON, OpenAPI schemas and GraphQL types are made.

Prices and sizes are strings of exact decimals, times RFC 3339 strings with nanoseconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter
from typing import Any, Final

from mdtool.core.units import UNDEF_PRICE, format_price, format_time


class Kind(Enum):
    """What a field holds, and how it is written."""

    TEXT = "text"
    PRICE = "price"  # int at 1e-9; None and UNDEF_PRICE are null
    SIZE = "size"  # int, of any length: a string
    COUNT = "count"  # int, small: a number
    TIME = "time"  # int, ns since the epoch; None is null
    FLAG = "flag"
    ROWS = "rows"  # a sequence of rows with fields of their own


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a row.

    Attributes
    ----------
    name : str
        In JSON, in snake case; GraphQL has it in camel case.
    kind : Kind
    about : str
        What it is, for OpenAPI and GraphQL.
    source : str
        The row's attribute.
    is_optional : bool
        Whether it may be null.
    is_sparse : bool
        Whether JSON leaves it out where it is false, as `stale`.
    fields : sequence of Field
        Of the rows of a field of rows.
    """

    name: str
    kind: Kind
    about: str
    source: str = ""
    is_optional: bool = False
    is_sparse: bool = False
    fields: Sequence[Field] = ()

    @property
    def attribute(self) -> str:
        """The row's attribute that it is read from."""
        return self.source or self.name


STALE: Final = Field(
    "stale",
    Kind.FLAG,
    "Whether the source is unavailable, so that this is the last known state.",
    source="is_stale",
    is_sparse=True,
)


def value_of(field: Field, row: Any) -> Any:
    """Return a field of a row as JSON has it, in Python's types."""
    value = getattr(row, field.attribute)
    return None if value is None else _VALUES[field.kind](value, field)


def encoder(fields: Sequence[Field]) -> Callable[[Any], bytes]:
    """Return a function that encodes a row as a JSON object, UTF-8."""
    parts: list[tuple[str, Callable[[Any], Any], Callable[[Any], str], bool]] = []
    for field in fields:
        start = f'"{field.name}":'
        parts.append((start, attrgetter(field.attribute), _text_of(field), field.is_sparse))

    def encode(row: Any) -> bytes:
        texts = [
            start + ("null" if (value := get(row)) is None else text(value))
            for start, get, text, is_sparse in parts
            if not is_sparse or get(row)
        ]
        return f"{{{','.join(texts)}}}".encode()

    return encode


def encode_missed(symbol: str, count: int | None) -> bytes:
    """Return the object that reports dropped events of a symbol."""
    return f'{{"symbol":{json.dumps(symbol)},"missed":{json.dumps(count)}}}'.encode()


def _text_of(field: Field) -> Callable[[Any], str]:
    if field.kind is Kind.ROWS:
        encode = encoder(field.fields)
        return lambda rows: f"[{','.join([encode(row).decode() for row in rows])}]"
    return _TEXTS[field.kind]


def _price(value: int) -> str:
    return "null" if value == UNDEF_PRICE else f'"{format_price(value)}"'


_TEXTS: Final[dict[Kind, Callable[[Any], str]]] = {
    Kind.TEXT: json.dumps,
    Kind.PRICE: _price,
    Kind.SIZE: '"{}"'.format,
    Kind.COUNT: str,
    Kind.TIME: lambda ns: f'"{format_time(ns)}"',
    Kind.FLAG: lambda flag: "true" if flag else "false",
}
_VALUES: Final[dict[Kind, Callable[[Any, Field], Any]]] = {
    Kind.TEXT: lambda value, _: value,
    Kind.PRICE: lambda value, _: None if value == UNDEF_PRICE else format_price(value),
    Kind.SIZE: lambda value, _: str(value),
    Kind.COUNT: lambda value, _: value,
    Kind.TIME: lambda value, _: format_time(value),
    Kind.FLAG: lambda value, _: bool(value),
    Kind.ROWS: lambda rows, field: [
        {each.name: value_of(each, row) for each in field.fields} for row in rows
    ],
}
