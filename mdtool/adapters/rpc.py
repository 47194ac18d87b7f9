"""gRPC stubs and handlers made from the service's own descriptor.

Generated stubs pin the gRPC version that generated them, and put `grpc` beside the messages in
`wire`; the descriptor has all that they have.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from mdtool.adapters.identity.config import services_secret
from mdtool.core import tracing
from mdtool.core.addresses import is_loopback, parse_address
from mdtool.core.config import load, setting
from mdtool.core.tls import client_tls
from mdtool.core.tracing import TRACEPARENT, Kind
from mdtool.wire._pb import marketdata_pb2

SERVICE: Final = marketdata_pb2.DESCRIPTOR.services_by_name["MarketDataService"]
STORE_HEALTH: Final = f"{SERVICE.full_name}.store"
"""The name under which health reports whether ticks can be committed."""
AUTHORIZATION: Final = "authorization"
"""The key of the metadata that has a call's token."""
OPTIONS: Final = (
    ("grpc.max_receive_message_length", 128 << 20),
    ("grpc.max_send_message_length", 128 << 20),
)
"""Options of every channel and server: the names of a million symbols are 72 MB at most."""
_CLIENT_OPTIONS: Final = (
    *OPTIONS,
    # A lost connection is reconnected soon after the service is available again.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 250),
    # How long an attempt may take: a busy or a distant service needs more than the delays between.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # A service whose machine is gone is noticed, although its stream only falls silent.
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 2_000),
)


_UNREAD_OPTIONS: Final = (
    ("grpc.http2.lookahead_bytes", 1 << 10),
    ("grpc.http2.bdp_probe", 0),  # which would widen it to megabytes
)
"""A window of a few small messages; longer messages widen it while they are read."""


@dataclass(frozen=True, slots=True)
class ConnectConfig:
    """Settings of connections from one service to another, `[connect]`."""

    use_proxy: bool = setting(
        False, "Whether gRPC beyond this machine uses the proxy of http_proxy and https_proxy."
    )


def open_channel(address: str, *, bounds_unread: bool = False) -> grpc.aio.Channel:
    """Return a channel to the service at `HOST:PORT`, which need not be available yet.

    Parameters
    ----------
    address : str
    bounds_unread : bool
        Whether messages that the client has not read stay with the service, but for a few: it then
        conflates them. By default, thousands wait in the window of HTTP/2.

    Raises
    ------
    UsageError, StartupError
        When the address or a setting is not valid, or a file of TLS cannot be used.
    """
    host, _ = parse_address(address)
    uses_proxy = load(ConnectConfig, "connect", {}).use_proxy and not is_loopback(host)
    options = (
        *_CLIENT_OPTIONS,
        *(_UNREAD_OPTIONS if bounds_unread else ()),
        ("grpc.enable_http_proxy", int(uses_proxy)),
    )
    tls = client_tls("aggregate")
    if tls is None:
        return grpc.aio.insecure_channel(address, options)
    if tls.config.name:
        options = (*options, ("grpc.ssl_target_name_override", tls.config.name))
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(*tls.pem()), options)


# Behind "Too many open files", gRPC leaves bytes that are no text, and logs a traceback of that.
logging.getLogger("grpc._cython.cygrpc").addFilter(
    lambda record: not str(record.msg).startswith("Invalid encoding")
)


def reason(error: grpc.aio.AioRpcError) -> str:
    """Return why a call failed, in one line."""
    details, *_ = (error.details() or "").splitlines() or [""]
    return details or error.code().name.lower()


@contextlib.contextmanager
def cancellable() -> Iterator[None]:
    """End as cancelled where the task was cancelled while the block waited for a call.

    gRPC gives a cancellation to a task of its own, which drops it where the call ends at the same
    moment: the block would go on with the call's answer or error.

    Raises
    ------
    asyncio.CancelledError
        Instead of the call's error, or at the block's end.
    """
    task = asyncio.current_task()
    assert task is not None
    cancels = task.cancelling()
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if task.cancelling() > cancels:
            raise asyncio.CancelledError from error
        raise
    if task.cancelling() > cancels:
        raise asyncio.CancelledError


class Stub:
    """The calls of `MarketDataService` on a channel, by their names.

    Parameters
    ----------
    channel : grpc.aio.Channel
    token : str, optional
        What the calls carry; by default, that of services.
    """

    def __init__(self, channel: grpc.aio.Channel, token: str | None = None) -> None:
        token = services_secret() if token is None else token
        metadata = [(AUTHORIZATION, f"Bearer {token}")] if token else None
        for method in SERVICE.methods:
            connect: Callable[..., Any] = getattr(channel, f"{_shape(method)}")
            call = connect(
                f"/{SERVICE.full_name}/{method.name}",
                request_serializer=GetMessageClass(method.input_type).SerializeToString,
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )
            if tracing.is_on() and _is_single(method):
                call = _traced_call(method.name, call, metadata or [])
            elif metadata is not None:
                call = functools.partial(call, metadata=metadata)
            setattr(self, method.name, call)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{SERVICE.full_name} has no call {name}")


Admitted = Callable[[str, Any, Any], contextlib.AbstractAsyncContextManager[Any]]
"""Admits a call by its name, its request, or the stream of these, and its context, in a block that
yields what the servicer gets for it; may abort. Its `note` is called with the call's one answer."""


def handler(servicer: object, admitted: Admitted | None = None) -> grpc.GenericRpcHandler:
    """Return the handler that answers each call by the servicer's method of the same name.

    A single request that is not a message of its kind ends its call with INVALID_ARGUMENT; in a
    stream of them, the servicer meets it as a DecodeError.
    """
    methods = {}
    for method in SERVICE.methods:
        make: Callable[..., Any] = getattr(grpc, f"{_shape(method)}_rpc_method_handler")
        answer = getattr(servicer, method.name)
        parse: Callable[[bytes], Any] = GetMessageClass(method.input_type).FromString
        if not method.client_streaming and inspect.iscoroutinefunction(answer):
            answer, parse = _refusing_garbage(answer), _or_error(parse)
        if admitted is not None:
            answer = _admitting(answer, functools.partial(admitted, method.name))
        if tracing.is_on() and _is_single(method):
            answer = _traced_answer(method.name, answer)
        methods[method.name] = make(
            answer,
            request_deserializer=parse,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(SERVICE.full_name, methods)


def _or_error(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return the error instead of raising it, for gRPC would log its traceback."""

    def parsed(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError as error:
            return error

    return parsed


def _refusing_garbage(answer: Callable[..., Any]) -> Callable[..., Any]:
    async def answered(request: Any, context: Any) -> Any:
        if isinstance(request, DecodeError):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(request))
        return await answer(request, context)

    return answered


def _admitting(answer: Callable[..., Any], admitted: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(answer):

        async def streamed(request: Any, context: Any) -> AsyncIterator[Any]:
            async with admitted(request, context) as call:
                async for message in answer(request, call):
                    yield message

        return streamed

    async def answered(request: Any, context: Any) -> Any:
        async with admitted(request, context) as call:
            message = await answer(request, call)
            if message is not None:
                call.note(message)
            return message

    return answered


def _traced_call(
    name: str, call: Callable[..., Any], metadata: Sequence[tuple[str, str]]
) -> Callable[..., Any]:
    """Return a call that is a span where what it is made for is traced."""

    async def made(request: Any, **options: Any) -> Any:
        with tracing.block(tracing.follow(name, tracing.current(), Kind.CLIENT)) as span:
            own = [] if span is None else [(TRACEPARENT, str(span.trace))]
            return await call(request, metadata=[*metadata, *own], **options)

    return made


def _traced_answer(name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
    """Return an answer that is a span where the request is traced."""

    async def answered(request: Any, context: Any) -> Any:
        metadata = dict(context.invocation_metadata() or ())
        traceparent = str(metadata.get(TRACEPARENT, ""))
        with tracing.block(tracing.begin(name, traceparent, Kind.SERVER)):
            return await answer(request, context)

    return answered


def _is_single(method: MethodDescriptor) -> bool:
    """Return whether a call has one request and one answer."""
    return not method.client_streaming and not method.server_streaming


def _shape(method: MethodDescriptor) -> str:
    """Return how gRPC names the method's kind: `unary_stream` and so on."""
    sides = (method.client_streaming, method.server_streaming)
    return "_".join("stream" if streaming else "unary" for streaming in sides)
