"""Spans to a receiver of OpenTelemetry's protocol (OTLP) over HTTP, from a thread of their own.

Services never wait for it. What it does not take is dropped, and reported in one line.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import queue
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from mdtool.core import tracing
from mdtool.core.errors import ConfigError
from mdtool.core.tracing import Span, TraceConfig, Tracer

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger(__name__)

MAX_WAITING: Final = 4_096
"""Spans; some 4 MB."""
_MAX_BATCH: Final = 512
_COLLECT_S: Final = 0.5
_TIMEOUT_S: Final = 2.0
"""How long a receiver may take for a batch, retries included."""
_CLOSE_S: Final = 1.0
"""How long the end of a process waits for the last batch."""
_PATH: Final = "/v1/traces"


@contextlib.contextmanager
def tracing_to(config: TraceConfig, service: str) -> Iterator[None]:
    """Trace within the block.

    Parameters
    ----------
    config : TraceConfig
        Its endpoint is not empty.
    service : str
        The name of the process's service.

    Raises
    ------
    ConfigError
        When the endpoint is not valid, or OpenTelemetry is not installed.
    """
    receiver = OtlpReceiver(config.endpoint)
    tracing.install(Tracer(service, config.sample, receiver.take))
    try:
        yield
    finally:
        tracing.install(None)
        receiver.close()


class OtlpReceiver:
    """Sends spans to a receiver.

    Parameters
    ----------
    endpoint : str
        Its URL. Without a path, that of OTLP is added.

    Raises
    ------
    ConfigError
        When it is not a URL of HTTP, or OpenTelemetry is not installed.
    """

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(f"[trace] endpoint: {endpoint!r} is not a URL of HTTP")
        if not _is_installed():
            raise ConfigError(
                "[trace] endpoint: OpenTelemetry is not installed; pip install 'mdtool[otel]'"
            )
        self._url = endpoint if parts.path.strip("/") else endpoint.rstrip("/") + _PATH
        self._name = f"traces to {parts.hostname}"
        self._waiting: queue.Queue[Span] = queue.Queue(MAX_WAITING)
        self._stopping = threading.Event()
        self._lost = 0
        self._is_failing = False
        self._resources: dict[str, Resource] = {}
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def take(self, span: Span) -> None:
        """Take a span that has ended; never waits."""
        try:
            self._waiting.put_nowait(span)
        except queue.Full:
            self._lost += 1
        if self._thread is None:  # not in a process that only supervises others
            self._start()

    @property
    def waiting(self) -> int:
        """How many spans wait to be sent."""
        return self._waiting.qsize()

    def close(self) -> None:
        """Send what waits, where that takes no longer than a moment."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        exporter = self._exporter()
        while not self._stopping.wait(_COLLECT_S):
            while spans := self._batch():
                self._send(exporter, spans)
        if spans := self._batch():
            self._send(exporter, spans)

    def _batch(self) -> Sequence[Span]:
        spans: list[Span] = []
        with contextlib.suppress(queue.Empty):
            while len(spans) < _MAX_BATCH:
                spans.append(self._waiting.get_nowait())
        return spans

    def _send(self, exporter: SpanExporter, spans: Sequence[Span]) -> None:
        from opentelemetry.sdk.trace.export import SpanExportResult

        try:
            result = exporter.export([self._readable(span) for span in spans])
        except Exception:  # noqa: BLE001 - whatever the library meets, services continue
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            if self._is_failing or self._lost:
                log.info("%s: accepted again; %d spans were lost", self._name, self._lost)
            self._is_failing, self._lost = False, 0
            return
        self._lost += len(spans)
        if not self._is_failing:
            self._is_failing = True
            log.warning("%s: not accepted by %s; dropping spans", self._name, self._url)

    def _exporter(self) -> SpanExporter:
        import requests
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        # It logs each batch that fails.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        session = requests.Session()
        session.trust_env = False  # as between services, no proxy of the environment
        return OTLPSpanExporter(self._url, timeout=_TIMEOUT_S, session=session)

    def _readable(self, span: Span) -> ReadableSpan:
        """Return a span as OpenTelemetry has it."""
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
        from opentelemetry.trace.status import Status, StatusCode

        def context(span_id: int, *, is_remote: bool) -> SpanContext:
            sampled = TraceFlags(TraceFlags.SAMPLED)
            return SpanContext(span.trace.trace_id, span_id, is_remote, sampled)

        return ReadableSpan(
            name=span.name,
            context=context(span.trace.span_id, is_remote=False),
            parent=context(span.parent_id, is_remote=True) if span.parent_id else None,
            resource=self._resource(span.service),
            attributes=span.attributes,
            kind=SpanKind[span.kind.name],
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
            start_time=span.began_ns,
            end_time=span.ended_ns,
        )

    def _resource(self, service: str) -> Resource:
        from opentelemetry.sdk.resources import Resource

        from mdtool import __version__

        if service not in self._resources:
            self._resources[service] = Resource.create(
                {
                    "service.namespace": "mdtool",
                    "service.name": service,
                    "service.version": __version__,
                    "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
                }
            )
        return self._resources[service]


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False
