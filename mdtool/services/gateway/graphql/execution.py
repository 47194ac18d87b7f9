"""Requests run against the schema: from the text of a document to the bytes of a response."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from graphql import (
    DocumentNode,
    GraphQLError,
    OperationDefinitionNode,
    SelectionSetNode,
    execute_sync,
)
from graphql.execution.values import VariableValues

from mdtool.core.errors import MdtoolError
from mdtool.services.gateway.graphql.documents import Documents, Operation
from mdtool.services.gateway.graphql.errors import (
    INVALID,
    TOO_COMPLEX,
    DocumentError,
    ErrorObject,
    InternalError,
    encode_errors,
    field_error,
)
from mdtool.services.gateway.graphql.limits import Limits
from mdtool.services.gateway.graphql.plan import TYPENAME, RootField
from mdtool.services.gateway.graphql.resolvers import Resolver
from mdtool.services.gateway.graphql.schema import check_schema, load_schema
from mdtool.services.gateway.parameters import MAX_ROWS
from mdtool.wire.graphql import Request

log = logging.getLogger(__name__)

_ROWS_ARGUMENTS: Final = ("limit", "depth")
"""Either says how many rows a field may have."""
_INTROSPECTION_COST: Final = 5_000
"""About the fields that a client's full introspection asks for."""


@dataclass(frozen=True, slots=True)
class Response:
    """What a query came to.

    Attributes
    ----------
    body : bytes
        `data`, with `errors` where some of it could not be had, and `extensions.stale` where
        `is_stale`.
    is_stale : bool
        Whether it has what was known before the aggregator went away.
    """

    body: bytes
    is_stale: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that can be run.

    Attributes
    ----------
    operation : Operation
    fields : sequence of RootField
        What it asks for.
    arguments : sequence
        Those of each field by name, or the error that they are.
    given : mapping
        The variables as the client gave them.
    """

    operation: Operation
    fields: Sequence[RootField]
    arguments: Sequence[Mapping[str, Any] | GraphQLError]
    given: Mapping[str, Any]


class Executor:
    """Runs requests.

    Parameters
    ----------
    resolvers : mapping
        Where each field of `Query` gets its rows.
    subscriptions : collection of str
        The fields of `Subscription` that are answered, elsewhere.
    limits : Limits
        What a request may ask for.
    may_introspect : bool
        Whether it may ask for the schema.
    """

    def __init__(
        self,
        resolvers: Mapping[str, Resolver],
        subscriptions: Collection[str],
        limits: Limits,
        *,
        may_introspect: bool,
    ) -> None:
        self._schema = load_schema()
        check_schema(self._schema, resolvers, subscriptions)
        self._resolvers = resolvers
        self._limits = limits
        self._documents = Documents(self._schema, limits, may_introspect=may_introspect)

    def prepare(self, request: Request) -> Prepared:
        """Return a request ready to run.

        Raises
        ------
        DocumentError
            When it cannot be run.
        """
        operation = self._documents.get(request.query).operation(request.operation_name)
        variables = operation.variables(request.variables)
        fields = operation.fields(variables)
        arguments = [_arguments(field, variables) for field in fields]
        self._check_complexity(fields, arguments)
        if operation.is_subscription and not fields:
            raise DocumentError([GraphQLError("the subscription asks for nothing")], INVALID)
        return Prepared(operation, fields, arguments, request.variables)

    async def query(self, prepared: Prepared) -> Response:
        """Run a query; what fails of it is null and told among the errors.

        Raises
        ------
        DocumentError
            When the schema itself is asked for in a way that it cannot be answered.
        """
        meta = self._meta(prepared)
        errors: list[ErrorObject] = []

        async def resolve(field: RootField, arguments: Mapping[str, Any] | GraphQLError) -> Any:
            if field.definition is None:
                return meta[field.key]
            if isinstance(arguments, GraphQLError):
                errors.append(field_error(arguments, field))
                return None
            try:
                return await self._resolvers[field.name](**arguments)
            except MdtoolError as error:
                errors.append(field_error(error, field))
            except Exception:
                log.exception("GraphQL field %s", field.name)
                errors.append(field_error(InternalError(), field))
            return None

        pairs = zip(prepared.fields, prepared.arguments, strict=True)
        if len(prepared.fields) == 1:  # a task of its own would take as long as the rest
            rows = [await resolve(*next(pairs))]
        else:
            rows = await asyncio.gather(*(resolve(*pair) for pair in pairs))
        members = [
            f'"{field.key}":{field.encode(row)}'
            for field, row in zip(prepared.fields, rows, strict=True)
        ]
        is_stale = any(getattr(row, "is_stale", False) for row in rows)
        return Response(_response(members, errors, is_stale=is_stale), is_stale)

    def _meta(self, prepared: Prepared) -> Mapping[str, Any]:
        """Return what is asked of the schema itself, by key: graphql-core has it."""
        fields = [field for field in prepared.fields if field.definition is None]
        if not fields:
            return {}
        operation = prepared.operation
        selections = tuple(node for field in fields for node in field.nodes)
        node = OperationDefinitionNode(
            operation=operation.node.operation,
            variable_definitions=operation.node.variable_definitions,
            selection_set=SelectionSetNode(selections=selections),
        )
        document = DocumentNode(definitions=(node, *operation.fragments.values()))
        result = execute_sync(self._schema, document, variable_values=dict(prepared.given))
        if result.errors or result.data is None:
            raise DocumentError(result.errors or [], INVALID)
        return result.data

    def _check_complexity(
        self,
        fields: Sequence[RootField],
        arguments: Sequence[Mapping[str, Any] | GraphQLError],
    ) -> None:
        cost = 0
        for field, given in zip(fields, arguments, strict=True):
            if field.definition is not None:
                cost += 1 + field.row_cost * _most_rows(given)
            elif field.name != TYPENAME:
                cost += _INTROSPECTION_COST
        if cost > self._limits.complexity:
            message = f"this asks for up to {cost:,} fields, of {self._limits.complexity:,} at most"
            raise DocumentError([GraphQLError(message)], TOO_COMPLEX)


def _response(members: list[str], errors: list[ErrorObject], *, is_stale: bool) -> bytes:
    told = b'"errors":%b,' % encode_errors(errors) if errors else b""
    data = f'"data":{{{",".join(members)}}}'.encode()
    marked = b',"extensions":{"stale":true}' if is_stale else b""
    return b"{%b%b%b}" % (told, data, marked)


def _most_rows(arguments: Mapping[str, Any] | GraphQLError) -> int:
    if isinstance(arguments, GraphQLError):
        return 1
    rows = next((arguments[name] for name in _ROWS_ARGUMENTS if name in arguments), 1)
    return int(min(max(rows, 1), MAX_ROWS))


def _arguments(
    field: RootField, variables: VariableValues | None
) -> Mapping[str, Any] | GraphQLError:
    try:
        return field.arguments_of(variables)
    except GraphQLError as error:
        return error
