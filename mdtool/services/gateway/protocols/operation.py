"""Descriptions of operations, from which the OpenAPI document is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mdtool.core.symbols import MAX_SYMBOL_CHARS
from mdtool.wire.cursors import MAX_CURSOR_CHARS, MIN_CURSOR_CHARS

Schema = Mapping[str, Any]
"""A JSON Schema of the 2020-12 dialect."""

JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an operation, in its path where that names it, else in its query."""

    name: str
    description: str
    schema: Schema
    example: str | int | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """What an operation answers with 200.

    Attributes
    ----------
    description : str
    schema : mapping
        As JSON Schema, or a reference to one of `schemas`.
    media_type : str
    headers : mapping
        Headers that it may have, by name, with their meanings.
    """

    description: str
    schema: Schema
    media_type: str = JSON
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A method of a path, described.

    Attributes
    ----------
    tag : str
        The group that it is listed in.
    fails : tuple of int
        The statuses of its errors, without those that any operation may have.
    failure : str
        The schema of their bodies.
    also : mapping
        What it answers with further statuses, where that is not an error's envelope.
    is_monitoring : bool
        Whether it is monitoring, which no limit applies to.
    """

    method: str
    path: str
    tag: str
    summary: str
    content: Content
    parameters: tuple[Parameter, ...] = ()
    fails: tuple[int, ...] = ()
    failure: str = "Failure"
    also: Mapping[int, Content] | None = None
    is_monitoring: bool = False


TIME: Final = {
    "type": "string",
    "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z$",
    "examples": ["2024-12-26T08:20:34.567123456Z"],
}
CURSOR: Final = {
    "type": "string",
    "pattern": f"^[A-Za-z][A-Za-z0-9_-]{{{MIN_CURSOR_CHARS - 1},{MAX_CURSOR_CHARS - 1}}}$",
}
_NAME: Final = rf"[!-+\-.-~]{{1,{MAX_SYMBOL_CHARS}}}"
"""A symbol in a list: without commas."""
SYMBOL: Final = Parameter(
    "symbol",
    "Printable ASCII, of any case.",
    {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_SYMBOL_CHARS,
        "pattern": "^[!-~]([ -~]*[!-~])?$",
    },
    example="AAPL",
)
SYMBOLS: Final = Parameter(
    "symbols",
    "Names with commas, or repeated; all by default.",
    {"type": "string", "pattern": f"^{_NAME}(,{_NAME})*$"},
    example="AAPL,MSFT",
)
WARNING_HEADER: Final = {"Warning": "110 where the answer is stale."}
RATE_HEADERS: Final = {
    "RateLimit-Policy": "How many requests like this a client may make.",
    "RateLimit": "How many are left.",
}


def object_schema(properties: Mapping[str, Any], *optional: str) -> Schema:
    """Return the schema of an object that has these properties and no others."""
    required = [name for name in properties if name not in optional]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def reference(name: str) -> Schema:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}
