"""OpenAPI 3.1 descriptions of operations, and the document that they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from mdtool import __version__
from mdtool.services.http.answers import Handler

Schema = Mapping[str, Any]
"""A JSON Schema of the 2020-12 dialect."""

JSON: Final = "application/json"
_RETRY_AFTER: Final = {
    "Retry-After": {
        "description": "Seconds after which to ask again.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    }
}
_STATUSES_WITH_RETRY: Final = frozenset({429, 503})


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
        Headers that it may have, by name, with what they tell.
    """

    description: str
    schema: Schema
    media_type: str = JSON
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A method of a path: its handler, and all that is told about it.

    Attributes
    ----------
    tag : str
        What it stands under, with others of its kind.
    fails : tuple of int
        The statuses of its errors, without those that any operation may have.
    also : mapping
        What it answers with further statuses, where that is no error's envelope.
    is_watching : bool
        Whether it is how the gateway is watched, which no client does too often.
    """

    method: str
    path: str
    tag: str
    handler: Handler
    summary: str
    content: Content
    parameters: tuple[Parameter, ...] = ()
    fails: tuple[int, ...] = ()
    also: Mapping[int, Content] | None = None
    is_watching: bool = False


def document(
    operations: Iterable[Operation], schemas: Mapping[str, Schema], failure: Schema, text: str
) -> dict[str, Any]:
    """Return the OpenAPI document of operations.

    Parameters
    ----------
    operations : iterable of Operation
    schemas : mapping
        What `#/components/schemas/NAME` refers to.
    failure : mapping
        The schema of every error's body.
    text : str
        What is to be said about all of them.
    """
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(
            operation, failure
        )
    return {
        "openapi": "3.1.0",
        "info": {"title": "mdtool gateway", "version": __version__, "description": text},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _described(operation: Operation, failure: Schema) -> dict[str, Any]:
    contents = {200: operation.content, **(operation.also or {})}
    responses = {str(status): _response(content) for status, content in contents.items()}
    common = (403, 500) if operation.is_watching else (403, 429, 500)
    for status in sorted({*operation.fails, *common}):
        phrase = HTTPStatus(status).phrase
        responses[str(status)] = {
            "description": phrase,
            **({"headers": _RETRY_AFTER} if status in _STATUSES_WITH_RETRY else {}),
            "content": {JSON: {"schema": failure}},
        }
    return {
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": [_parameter(operation, parameter) for parameter in operation.parameters],
        "responses": responses,
    }


def _parameter(operation: Operation, parameter: Parameter) -> dict[str, Any]:
    is_in_path = f"{{{parameter.name}}}" in operation.path
    return {
        "name": parameter.name,
        "in": "path" if is_in_path else "query",
        "required": is_in_path,
        "description": parameter.description,
        "schema": parameter.schema,
        **({} if parameter.example is None else {"example": parameter.example}),
    }


def _response(content: Content) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": content.description,
        "content": {content.media_type: {"schema": content.schema}},
    }
    if content.headers:
        described["headers"] = {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in content.headers.items()
        }
    return described
