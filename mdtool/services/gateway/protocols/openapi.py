"""The OpenAPI document: version 1 as it is fixed, version 2 from the table of feeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from mdtool import __version__
from mdtool.services.gateway.feeds import Feeds
from mdtool.services.gateway.fields import Field, Kind
from mdtool.services.gateway.parameters import DEFAULT_ROWS, ORDERS
from mdtool.services.gateway.protocols import openapi_v1
from mdtool.services.gateway.protocols.operation import (
    CURSOR,
    JSON,
    RATE_HEADERS,
    SYMBOL,
    SYMBOLS,
    TIME,
    WARNING_HEADER,
    Content,
    Operation,
    Parameter,
    Schema,
    object_schema,
    reference,
)
from mdtool.services.gateway.protocols.rest import MAX_ROWS, PREFIX
from mdtool.services.gateway.table import FeedRow
from mdtool.services.gateway.websockets import about_closing

ABOUT: Final = f"""\
Market data as of now. Prices are never invented: while the aggregator is unavailable, the last
known state is answered with the header `Warning: 110` and `"stale": true`, and 503 where nothing is
known.

Version 2 has every feed in one form. Version 1, and `/v1/quotes`, keep their shapes.

WebSockets: `/stream` has every feed over one socket. `/ws/marketdata?symbol=AAPL` sends the
aggregate of a symbol at once and on each update, `/ws` quotes as they change, of every symbol or of
`?symbols=AAPL,MSFT`.

STOMP 1.0 to 1.2 at `/ws/websocket`, and in SockJS at `/ws`: subscribe to
`/topic/market-data/SYMBOL`, `/topic/bars/SYMBOL/INTERVAL`, `/topic/quotes/SYMBOL` and so on, where
`*` is every symbol. WebRTC peers send their signals to `/app/signal/ROOM` and receive those of
others from `/topic/signaling/ROOM`. Pages to try it: [STOMP](demo/stomp), [a call](demo/call).

{about_closing()}"""

_RETRY_AFTER: Final = {
    "Retry-After": {
        "description": "Seconds after which to retry.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    }
}
_STATUSES_WITH_RETRY: Final = frozenset({429, 503})
_FAILURE: Final = "FailureV2"
_LIMIT: Final = Parameter(
    "limit",
    "At most so many rows.",
    {"type": "integer", "minimum": 1, "maximum": MAX_ROWS, "default": DEFAULT_ROWS},
)
_CURSOR: Final = Parameter("cursor", "`next` of the page before, of the same request.", CURSOR)
_MOMENT: Final = {
    "oneOf": [
        {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
        {"type": "string", "format": "date-time"},
    ]
}
_SESSION: Final = Parameter(
    "session",
    "`previous`, or the date of a session that is kept: of the current one or the one before. By "
    "default the current one.",
    {"oneOf": [{"type": "string", "enum": ["previous"]}, {"type": "string", "format": "date"}]},
)
_FROM: Final = Parameter(
    "from", "The earliest time: RFC 3339, or ms or ns since the epoch.", _MOMENT
)
_TO: Final = Parameter("to", "The time before which rows are requested, likewise.", _MOMENT)
_DECIMAL: Final = {
    "type": "string",
    "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?$",
    "examples": ["187.25"],
}
_KINDS: Final[Mapping[Kind, Schema]] = {
    Kind.TEXT: {"type": "string"},
    Kind.PRICE: _DECIMAL,
    Kind.SIZE: {"type": "string", "pattern": "^[0-9]+$", "examples": ["1000000"]},
    Kind.COUNT: {"type": "integer", "minimum": 0},
    Kind.TIME: TIME,
    Kind.FLAG: {"type": "boolean"},
}


def document(feeds: Feeds) -> dict[str, Any]:
    """Return the OpenAPI document of the gateway."""
    operations = [*openapi_v1.OPERATIONS, *_operations(feeds)]
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        of_path = paths.setdefault(operation.path, {})
        of_path[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "mdtool gateway", "version": __version__, "description": ABOUT},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": {**openapi_v1.SCHEMAS, **_schemas(feeds)}},
    }


def _described(operation: Operation) -> dict[str, Any]:
    contents = {200: operation.content, **(operation.also or {})}
    responses = {str(status): _response(content) for status, content in contents.items()}
    common = (403, 500) if operation.is_monitoring else (403, 429, 500)
    for status in sorted({*operation.fails, *common}):
        phrase = HTTPStatus(status).phrase
        responses[str(status)] = {
            "description": phrase,
            **({"headers": _RETRY_AFTER} if status in _STATUSES_WITH_RETRY else {}),
            "content": {JSON: {"schema": reference(operation.failure)}},
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
        **({} if is_in_path else {"allowEmptyValue": True}),
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


def _operations(feeds: Feeds) -> Iterator[Operation]:
    """Return the operations of version 2."""
    for row in feeds.rows:
        options = () if row.option is None else (_option(row),)
        past = (_SESSION,) if row.has_past else ()
        path = f"{PREFIX}/{row.name}"
        if not row.is_whole:
            yield Operation(
                method="GET",
                path=f"{path}/{{symbol}}",
                tag="feeds",
                summary=row.about,
                parameters=(SYMBOL, *options, *past, *(_paging("desc") if row.has_history else ())),
                content=_content(row, is_list=row.has_history),
                fails=(400, 404, 502, 503, 504)
                if row.is_upstream or row.has_past
                else (400, 404, 503),
                failure=_FAILURE,
            )
        if row.has_events:
            paging: Sequence[Parameter] = (SYMBOLS, *_paging("desc"))
        else:
            paging = (SYMBOLS, _LIMIT, _order("asc"), _CURSOR)
        yield Operation(
            method="GET",
            path=path,
            tag="feeds",
            summary=f"{row.about} Of every symbol{', the latest' if row.has_events else ''}.",
            parameters=(*options, *paging),
            content=_content(row, is_list=True),
            fails=(400, 404, 502, 503, 504) if row.is_upstream else (400, 503),
            failure=_FAILURE,
        )


def _option(row: FeedRow) -> Parameter:
    assert row.option is not None
    return Parameter(row.option.name, row.option.about, row.option.schema)


def _order(default: str) -> Parameter:
    about = "Of time, or of symbols in a list of them."
    return Parameter("order", about, {"type": "string", "enum": [*ORDERS], "default": default})


def _paging(order: str) -> Sequence[Parameter]:
    return (_LIMIT, _order(order), _FROM, _TO, _CURSOR)


def _content(row: FeedRow, *, is_list: bool) -> Content:
    data = reference(_name(row))
    if is_list:
        data = {"type": "array", "items": data, "maxItems": MAX_ROWS}
    envelope = object_schema(
        {
            "data": data,
            "next": {**CURSOR, "type": ["string", "null"]} if is_list else {"type": "null"},
            "error": {"type": "null"},
        }
    )
    headers = {**WARNING_HEADER, **(RATE_HEADERS if row.is_upstream else {})}
    about = "Rows; `next` is the cursor of the next page, null at the end." if is_list else "A row."
    return Content(about, envelope, headers=headers)


def _name(row: FeedRow) -> str:
    return f"{row.graphql_type}V2"


def _schemas(feeds: Feeds) -> Mapping[str, Schema]:
    failure = object_schema(
        {
            "data": {"type": "null"},
            "next": {"type": "null"},
            "error": object_schema({"code": {"type": "string"}, "message": {"type": "string"}}),
        }
    )
    return {_name(row): _row_schema(row.fields) for row in feeds.rows} | {_FAILURE: failure}


def _row_schema(fields: Sequence[Field]) -> Schema:
    sparse = [field.name for field in fields if field.is_sparse]
    return object_schema({field.name: _field_schema(field) for field in fields}, *sparse)


def _field_schema(field: Field) -> Schema:
    if field.kind is Kind.ROWS:
        schema: Schema = {"type": "array", "items": _row_schema(field.fields)}
    else:
        schema = _KINDS[field.kind]
    if field.is_optional:
        schema = {**schema, "type": [schema["type"], "null"]}
    return {**schema, "description": field.about}
