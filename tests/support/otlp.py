"""A receiver of OpenTelemetry's protocol over HTTP, and one that never answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Received


@dataclass(frozen=True, slots=True)
class Span:
    """A span, as the receiver got it; ids are hexadecimal."""

    name: str
    service: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    began_ns: int
    ended_ns: int
    attributes: dict[str, str | int]
    has_failed: bool


@dataclass(slots=True)
class Receiver:
    """What a receiver got."""

    endpoint: str = ""
    spans: list[Span] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, chosen: Callable[[Sequence[Span]], list[Span]]) -> list[Span]:
        """Wait until a function of all spans chooses some, and return these."""
        while not (found := chosen(self.spans)):
            self._news.clear()
            await self._news.wait()
        return found

    async def chain(self, *names: str) -> list[Span]:
        """Wait for spans of these names, of which each follows from the one before; return them."""

        def found(spans: Sequence[Span]) -> list[Span]:
            by_id = {(span.trace_id, span.span_id): span for span in spans}
            for last in spans:
                way: list[Span] = [last]
                while parent := by_id.get((last.trace_id, way[0].parent_id)):
                    way.insert(0, parent)
                if [span.name for span in way] == list(names):
                    return way
            return []

        return await self.until(found)

    async def take(self, request: web.Request) -> web.Response:
        """Answer a batch of spans."""
        batch = ExportTraceServiceRequest.FromString(await request.read())
        for group in batch.resource_spans:
            service = _values(group.resource.attributes)["service.name"]
            for scope in group.scope_spans:
                self.spans += (_span(span, str(service)) for span in scope.spans)
        self._news.set()
        body = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=body, content_type="application/x-protobuf")


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Receive spans within the block."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/v1/traces", receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        receiver.endpoint = f"http://{host}:{port}"
        yield receiver
    finally:
        await runner.cleanup()


def _values(attributes) -> dict[str, str | int]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def _span(span: Received, service: str) -> Span:
    return Span(
        name=span.name,
        service=service,
        kind=Received.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        began_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        attributes=_values(span.attributes),
        has_failed=span.status.code == span.status.STATUS_CODE_ERROR,
    )
