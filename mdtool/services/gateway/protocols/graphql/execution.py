"""Operations executed by graphql-core: queries, and each row that subscriptions share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from graphql import (
    ExecutionResult,
    Executor,
    GraphQLError,
    get_argument_values,
    get_variable_values,
)
from graphql.execution.values import VariableValues
from graphql.type import GraphQLLeafType

from mdtool.core.errors import MdtoolError
from mdtool.services.client import Client, Turn
from mdtool.services.gateway.feeds import Feeds
from mdtool.services.gateway.feeds.feed import Key
from mdtool.services.gateway.feeds.permitted import PermittedFeed
from mdtool.services.gateway.hub import Format
from mdtool.services.gateway.parameters import DEFAULT_DEPTH, DEFAULT_ROWS, MAX_ROWS
from mdtool.services.gateway.protocols.graphql.documents import (
    TYPENAME,
    Documents,
    Limits,
    Operation,
    RootField,
)
from mdtool.services.gateway.protocols.graphql.errors import (
    BAD_INPUT,
    INVALID,
    MAX_ERRORS,
    TOO_COMPLEX,
    DocumentError,
    ErrorObject,
    encode_errors,
    field_error,
)
from mdtool.services.gateway.protocols.graphql.resolvers import (
    Arguments,
    Resolve,
    feed_fields,
    stored_symbols_of,
    symbols_of,
)
from mdtool.services.gateway.protocols.graphql.schema import Number, make_schema
from mdtool.wire.graphql import NEXT_TAIL, Request

_ROWS_ARGUMENTS: Final = {"limit": DEFAULT_ROWS, "depth": DEFAULT_DEPTH}
"""The arguments that bound the rows of a field, with what null means."""
_INTROSPECTION_COST: Final = 5_000
"""The approximate number of fields of a full introspection."""
_STALE: Final = {"stale": True}
_encode_leaf: Final = json.JSONEncoder().encode


@dataclass(frozen=True, slots=True)
class Response:
    """The response to a query.

    Attributes
    ----------
    body : bytes
    is_stale : bool
        Whether some of its rows are the last known ones of a source that is unavailable.
    """

    body: bytes
    is_stale: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that can be executed.

    Attributes
    ----------
    operation : Operation
    variables : dict
        As the client sent them.
    fields : sequence of RootField
    arguments : sequence
        Those of each field by name; None where they are not valid, which its execution reports.
    """

    operation: Operation
    variables: dict[str, Any]
    fields: Sequence[RootField]
    arguments: Sequence[Arguments | None]


class Operations:
    """Prepares and executes what clients request.

    Parameters
    ----------
    feeds : Feeds
    limits : Limits
    may_introspect : bool
        Whether clients may read the schema.

    Attributes
    ----------
    schema : GraphQLSchema
    """

    def __init__(
        self,
        feeds: Feeds,
        limits: Limits,
        *,
        may_introspect: bool,
    ) -> None:
        self.schema = make_schema(feeds.rows)
        self._fields = feed_fields(self.schema, feeds)
        self._resolvers: Mapping[str, Resolve] = {
            **{name: field.find for name, field in self._fields.items()},
            "symbols": symbols_of(feeds),
            "storedSymbols": stored_symbols_of(feeds),
        }
        self._limits = limits
        self._may_introspect = may_introspect
        self._documents = Documents(self.schema, limits, may_introspect=may_introspect)
        self._closed_documents = Documents(self.schema, limits, may_introspect=False)

    def prepare(self, request: Request, client: Client) -> Prepared:
        """Return a request of a client ready to be executed.

        Raises
        ------
        DocumentError
            When it is not valid.
        """
        may_introspect = client.principal.access.has("introspection")
        documents = self._documents if may_introspect else self._closed_documents
        operation = documents.get(request.query).operation(request.operation_name)
        variables = self._variables(operation, request.variables)
        fields = operation.fields(variables)
        arguments: list[Arguments | None] = []
        for field in fields:
            try:
                definition = field.definition
                given = get_argument_values(definition, field.node, variables) if definition else {}
            except GraphQLError:
                arguments.append(None)
            else:
                arguments.append(given)
        self._check_complexity(fields, arguments)
        if operation.is_subscription and not fields:
            raise DocumentError([GraphQLError("the subscription selects no field")], INVALID)
        return Prepared(operation, request.variables, fields, arguments)

    async def query(self, client: Client, turn: Turn, prepared: Prepared) -> Response:
        """Execute a query. A field that fails is null, and its error is in the response.

        Parameters
        ----------
        client : Client
        turn : Turn
            Charges the client for the execution.
        prepared : Prepared
            Of a query.
        """
        pairs = [
            pair
            for pair in zip(prepared.fields, prepared.arguments, strict=True)
            if pair[0].definition is not None
        ]
        if len(pairs) == 1:  # a task would take as long as the rest
            found = [await self._find(client, *pairs[0])]
        else:
            found = await asyncio.gather(*(self._find(client, *pair) for pair in pairs))
        rows = {field.key: value for (field, _), (value, _) in zip(pairs, found, strict=True)}
        is_stale = any(is_stale for _, is_stale in found)
        with turn:
            result = self.execute(prepared, rows)
            return Response(encode_result(result, _STALE if is_stale else None), is_stale)

    def follow(self, prepared: Prepared) -> tuple[PermittedFeed, Key, Format]:
        """Return the feed of a subscription, what it selects of it, and the format of its rows.

        Raises
        ------
        ParameterError
            When an argument is not valid.
        DocumentError
            When a variable is null where it must not be.
        """
        (field,), (arguments,) = prepared.fields, prepared.arguments
        if arguments is None:  # executing it says why
            raise DocumentError(self.execute(prepared, {field.key: None}).errors or (), BAD_INPUT)
        of = self._fields[field.name]
        return of.feed, of.key(arguments), RowFormat(self, prepared)

    def failure(self, prepared: Prepared, error: MdtoolError) -> Sequence[ErrorObject]:
        """Return an error of a subscription's feed as one of its field."""
        result = self.execute(prepared, {prepared.fields[0].key: error})
        return [field_error(each) for each in result.errors or ()]

    def execute(self, prepared: Prepared, rows: Mapping[str, Any]) -> ExecutionResult:
        """Execute an operation for rows, or exceptions in their place, by response key."""
        # A copy for each row would share a cache that grows by an entry with each execution.
        executor = RowExecutor.build(
            self.schema,
            prepared.operation.document,
            rows,
            raw_variable_values=prepared.variables,
            operation_name=prepared.operation.name,
            is_awaitable=_is_never_awaitable,
        )
        assert isinstance(executor, RowExecutor)
        result = executor.execute_operation()
        assert isinstance(result, ExecutionResult)
        return result

    async def _find(
        self, client: Client, field: RootField, arguments: Arguments | None
    ) -> tuple[Any, bool]:
        """Return the value of a field, or the exception that graphql-core is to report."""
        if arguments is None:
            return None, False
        try:
            return await self._resolvers[field.name](client, arguments)
        except Exception as error:  # noqa: BLE001 - see errors.field_error
            return error, False

    def _variables(self, operation: Operation, given: dict[str, Any]) -> VariableValues:
        """Return the variables as their types require."""
        values = get_variable_values(
            self.schema,
            operation.variable_definitions,
            given,
            max_errors=MAX_ERRORS,
            hide_suggestions=not self._may_introspect,
        )
        if isinstance(values, list):
            raise DocumentError(values, BAD_INPUT)
        return values

    def _check_complexity(
        self, fields: Sequence[RootField], arguments: Sequence[Arguments | None]
    ) -> None:
        cost = 0
        for field, given in zip(fields, arguments, strict=True):
            if field.definition is not None:
                cost += 1 + field.row_cost * _most_rows(given)
            elif field.name != TYPENAME:
                cost += _INTROSPECTION_COST
        if cost > self._limits.complexity:
            message = (
                f"the response may have {cost:,} fields, more than {self._limits.complexity:,}"
            )
            raise DocumentError([GraphQLError(message)], TOO_COMPLEX)


class RowFormat:
    """The format of a subscription's rows, equal for equal selections of the same field.

    Parameters
    ----------
    operations : Operations
    prepared : Prepared
        Of any of the subscriptions.
    """

    __slots__ = ("_identity", "_key", "_operations", "_prepared")

    def __init__(self, operations: Operations, prepared: Prepared) -> None:
        (field,) = prepared.fields
        self._operations = operations
        self._prepared = prepared
        self._key = field.key
        self._identity = (field.name, field.key, field.selection)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowFormat) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def encode(self, row: Any, is_snapshot: bool = False) -> bytes:  # noqa: ARG002 - for others
        """Return the response for a row, and the end of its message."""
        result = self._operations.execute(self._prepared, {self._key: row})
        return encode_result(result) + NEXT_TAIL

    def missed(self, symbol: str, count: int | None) -> bytes:
        """Return the response that reports dropped events."""
        missed = ExecutionResult({self._key: None}, extensions={"symbol": symbol, "missed": count})
        return encode_result(missed) + NEXT_TAIL


class RowExecutor(Executor[None]):
    """Graphql-core's executor, except that numbers keep their decimals."""

    @staticmethod
    def complete_leaf_value(return_type: GraphQLLeafType, result: Any) -> Any:
        """Return a leaf as the response has it."""
        if type(result) is Number:
            return result
        return Executor.complete_leaf_value(return_type, result)


def encode_result(result: ExecutionResult, extensions: Mapping[str, Any] | None = None) -> bytes:
    """Return a response as JSON."""
    errors = b""
    if result.errors:
        errors = b'"errors":%b,' % encode_errors([field_error(each) for each in result.errors])
    extensions = extensions or result.extensions
    end = f',"extensions":{_encode(extensions)}' if extensions else ""
    return b"{%b%b}" % (errors, f'"data":{_encode(result.data)}{end}'.encode())


def _encode(value: Any) -> str:
    kind = type(value)
    if kind is dict:
        members = [f'"{key}":{_encode(each)}' for key, each in value.items()]
        return "{" + ",".join(members) + "}"
    if kind is list:
        return "[" + ",".join(map(_encode, value)) + "]"
    text: str = value if kind is Number else _encode_leaf(value)
    return text


def _is_never_awaitable(_value: Any) -> TypeGuard[Awaitable[Any]]:
    return False


def _most_rows(arguments: Arguments | None) -> int:
    given = arguments or {}
    for name, default in _ROWS_ARGUMENTS.items():
        if name in given:
            rows = default if given[name] is None else given[name]
            return int(min(max(rows, 1), MAX_ROWS))
    return 1
