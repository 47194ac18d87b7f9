"""The errors of GraphQL responses and their codes."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from graphql import GraphQLError

from mdtool.core.errors import MdtoolError
from mdtool.services.gateway.http import STATUSES

log = logging.getLogger(__name__)

ErrorObject = Mapping[str, Any]
"""An entry of `errors`: message, locations, path and extensions.code."""

MAX_ERRORS: Final = 10
"""The most errors reported of a document, or of the variables of a request."""

SYNTAX: Final = "GRAPHQL_PARSE_FAILED"
INVALID: Final = "GRAPHQL_VALIDATION_FAILED"
TOO_COMPLEX: Final = "QUERY_TOO_COMPLEX"
BAD_REQUEST: Final = "BAD_REQUEST"
NOT_PERSISTED: Final = "PERSISTED_QUERY_NOT_SUPPORTED"
TOO_MANY: Final = "TOO_MANY_OPERATIONS"
BAD_INPUT: Final = "BAD_USER_INPUT"
INTERNAL: Final = "INTERNAL_SERVER_ERROR"
_UNEXPECTED: Final = "the gateway failed; see its log"


class DocumentError(MdtoolError):
    """A request that cannot be executed, so that its response has no data.

    Attributes
    ----------
    errors : list of ErrorObject
        At least one.
    """

    def __init__(self, errors: Iterable[GraphQLError], code: str) -> None:
        self.errors = [error_object(error, code) for error in errors]
        super().__init__(self.errors[0]["message"])


def error_object(error: GraphQLError, code: str) -> ErrorObject:
    """Return an error with its code."""
    return {**error.formatted, "extensions": {**(error.extensions or {}), "code": code}}


def request_error(message: str, code: str) -> ErrorObject:
    """Return an error that is not of a place in a document."""
    return {"message": message, "extensions": {"code": code}}


def field_error(error: GraphQLError) -> ErrorObject:
    """Return an error of a field; the cause of an unexpected one goes to the log only."""
    cause = error.original_error
    if cause is None or isinstance(cause, GraphQLError):
        return error_object(error, BAD_INPUT)
    if isinstance(cause, MdtoolError):
        return error_object(error, _code_of(cause))
    log.error("GraphQL field %s", error.path, exc_info=cause)
    masked = GraphQLError(_UNEXPECTED, error.nodes, path=error.path)
    return error_object(masked, INTERNAL)


def encode_errors(errors: Sequence[ErrorObject]) -> bytes:
    """Return errors as a JSON array."""
    return json.dumps(errors, separators=(",", ":")).encode()


def encode_failure(errors: Sequence[ErrorObject]) -> bytes:
    """Return a response without data."""
    return b'{"errors":%b}' % encode_errors(errors)


def _code_of(error: MdtoolError) -> str:
    for kind, (status, code) in STATUSES.items():
        if isinstance(error, kind):
            return BAD_INPUT if status == 400 else code.upper()
    return "BAD_GATEWAY"
