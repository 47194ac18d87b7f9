"""What goes wrong with GraphQL requests, in the shape in which GraphQL tells it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from graphql import GraphQLError

from mdtool.core.errors import MdtoolError
from mdtool.services.gateway.answers import STATUSES
from mdtool.services.gateway.graphql.plan import RootField

ErrorObject = Mapping[str, Any]
"""An entry of `errors`: message, locations, path and extensions.code."""

SYNTAX: Final = "GRAPHQL_PARSE_FAILED"
INVALID: Final = "GRAPHQL_VALIDATION_FAILED"
TOO_COMPLEX: Final = "QUERY_TOO_COMPLEX"
BAD_REQUEST: Final = "BAD_REQUEST"
TOO_MANY: Final = "TOO_MANY_OPERATIONS"
BAD_INPUT: Final = "BAD_USER_INPUT"
INTERNAL: Final = "INTERNAL_SERVER_ERROR"


class InternalError(MdtoolError):
    """Something that nobody foresaw."""

    def __init__(self) -> None:
        super().__init__("the gateway failed; its log says how")


class DocumentError(MdtoolError):
    """A request that cannot be executed: no data of it is answered.

    Attributes
    ----------
    errors : list of ErrorObject
        Why, at least one.
    """

    def __init__(self, errors: Iterable[GraphQLError], code: str) -> None:
        self.errors = [error_object(error, code) for error in errors]
        super().__init__(self.errors[0]["message"])


def error_object(error: GraphQLError, code: str) -> ErrorObject:
    """Return an error with its code."""
    return {**error.formatted, "extensions": {**(error.extensions or {}), "code": code}}


def request_error(message: str, code: str) -> ErrorObject:
    """Return an error that has no place in a document."""
    return {"message": message, "extensions": {"code": code}}


def field_error(error: MdtoolError | GraphQLError, field: RootField) -> ErrorObject:
    """Return an error of one field of an operation."""
    code = BAD_INPUT if isinstance(error, GraphQLError) else _code_of(error)
    message = error.message if isinstance(error, GraphQLError) else str(error)
    return error_object(GraphQLError(message, field.nodes[0], path=[field.key]), code)


def encode_errors(errors: Sequence[ErrorObject]) -> bytes:
    """Return errors as JSON, an array."""
    return json.dumps(errors, separators=(",", ":")).encode()


def encode_response(errors: Sequence[ErrorObject]) -> bytes:
    """Return a response without data."""
    return b'{"errors":%b}' % encode_errors(errors)


def _code_of(error: MdtoolError) -> str:
    for kind, (status, code) in STATUSES.items():
        if isinstance(error, kind):
            return BAD_INPUT if status == 400 else code.upper()
    return INTERNAL if isinstance(error, InternalError) else "BAD_GATEWAY"
