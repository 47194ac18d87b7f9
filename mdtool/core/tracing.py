"""Traces: the way of a sampled batch or request through the services, in spans.

Nothing is recorded before `install`: until then, functions here return at once. A batch is found
again, from one function to the next, by the place of its frames in their stream, as its
acknowledgement is: what holds ticks need not hold traces. Between processes a trace goes as a
`traceparent` (W3C Trace Context).
"""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import Token
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeAlias

from mdtool.core.config import setting
from mdtool.core.logs import SERVICE, TRACE

if TYPE_CHECKING:
    from mdtool.core.trades import Frames, TradeRun

TRACEPARENT: Final = "traceparent"
"""The header of HTTP, of gRPC's metadata and of Kafka's records that has a trace."""
_PARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_SAMPLED: Final = 1
_MAX_STREAMS: Final = 1_024
_MAX_MARKS: Final = 16
"""Of a stream, traces that are on their way."""


@dataclass(frozen=True, slots=True)
class TraceConfig:
    """What is traced, and where it is sent, `[trace]`."""

    endpoint: str = setting(
        "",
        "Where traces go: the URL of an OTLP receiver over HTTP; by default nowhere.",
        example="http://127.0.0.1:4318",
    )
    sample: float = setting(
        0.01,
        "The share of batches, and of requests that bring no trace, that are traced.",
        low=0,
        high=1,
    )


class Trace(NamedTuple):
    """A span of a trace. As text, it is the `traceparent` of what follows from it."""

    trace_id: int
    span_id: int
    is_sampled: bool = True

    @classmethod
    def parse(cls, traceparent: str) -> Self | None:
        """Return the trace of a `traceparent`, None where that is not valid."""
        match = _PARENT.fullmatch(traceparent.strip())
        if match is None or (match[1] == "00" and match[5]):
            return None
        trace_id, span_id = int(match[2], 16), int(match[3], 16)
        is_sampled = bool(int(match[4], 16) & _SAMPLED)
        return cls(trace_id, span_id, is_sampled) if trace_id and span_id else None

    def __str__(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.is_sampled):02x}"


class Kind(Enum):
    """Whether a span is the request or the answer of a call, or neither."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"


@dataclass(slots=True)
class Span:
    """A piece of work: a context manager, within which log lines have its ids.

    Attributes
    ----------
    name : str
    service : str
    trace : Trace
        Its own.
    parent_id : int
        The span that it follows from; 0 for the first of a trace.
    kind : Kind
    began_ns, ended_ns : int
        Nanoseconds since the epoch.
    attributes : dict
    error : str
        Why it failed; empty where it did not.
    """

    name: str
    service: str
    trace: Trace
    parent_id: int
    kind: Kind
    began_ns: int
    export: Callable[[Span], None]
    ended_ns: int = 0
    attributes: dict[str, str | int] = field(default_factory=dict)
    error: str = ""
    _token: Token[tuple[int, int] | None] | None = None

    def __enter__(self) -> Self:
        self._token = TRACE.set((self.trace.trace_id, self.trace.span_id))
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        assert self._token is not None
        TRACE.reset(self._token)
        if error is not None:
            self.error = f"{type(error).__name__}: {error}"
        self.end()

    def end(self) -> None:
        """End it now."""
        self.ended_ns = time.time_ns()
        self.export(self)


Traced: TypeAlias = contextlib.AbstractContextManager[Span | None]
"""A block that is a span, or nothing."""

_NOTHING: Final[Traced] = contextlib.nullcontext()


class Tracer:
    """Begins spans, and knows which batches are traced.

    Parameters
    ----------
    service : str
        The name of the process's service, where it has only one.
    sample : float
        The share of batches and requests that are traced.
    export : callable
        Takes each span that has ended; it must not block.
    """

    def __init__(self, service: str, sample: float, export: Callable[[Span], None]) -> None:
        self._service = service
        self._sample = sample
        self._export = export
        self._marks: dict[str, deque[tuple[int, Trace]]] = {}

    def samples(self) -> bool:
        """Choose whether to trace what begins now."""
        return random.random() < self._sample  # noqa: S311 - no secret

    def begin(
        self,
        name: str,
        parent: Trace | None,
        kind: Kind = Kind.INTERNAL,
        *,
        began_ns: int = 0,
        service: str = "",
    ) -> Span:
        """Begin a span, the first of a trace where it has no parent."""
        trace_id = random.getrandbits(128) or 1 if parent is None else parent.trace_id
        return Span(
            name,
            service or SERVICE.get() or self._service,
            Trace(trace_id, random.getrandbits(64) or 1),
            0 if parent is None else parent.span_id,
            kind,
            began_ns or time.time_ns(),
            self._export,
        )

    def mark(self, stream_id: str, next_sequence: int, trace: Trace) -> None:
        """Remember that the frame before a position of a stream is traced."""
        marks = self._marks.pop(stream_id, None) or deque(maxlen=_MAX_MARKS)
        marks.append((next_sequence, trace))
        self._marks[stream_id] = marks
        if len(self._marks) > _MAX_STREAMS:
            del self._marks[next(iter(self._marks))]

    def find(self, run: TradeRun) -> tuple[int, Trace] | None:
        """Return the last position in a run that is marked, and its trace."""
        marks = self._marks.get(run.stream_id)
        if marks is not None:
            for mark in reversed(marks):
                if run.first_sequence < mark[0] <= run.next_sequence:
                    return mark
        return None


_tracer: Tracer | None = None


def install(tracer: Tracer | None) -> None:
    """Record spans from now on; None ends that."""
    global _tracer  # noqa: PLW0603 - one a process, as loggers are
    _tracer = tracer


def is_on() -> bool:
    """Return whether anything is recorded."""
    return _tracer is not None


def current() -> str:
    """Return the `traceparent` of the block that runs now; empty outside of any."""
    ids = TRACE.get()
    return "" if ids is None else str(Trace(*ids))


def begin(name: str, traceparent: str = "", kind: Kind = Kind.INTERNAL) -> Span | None:
    """Begin a span where its parent is sampled, or, without a valid one, by chance."""
    if _tracer is None:
        return None
    parent = Trace.parse(traceparent)
    is_sampled = _tracer.samples() if parent is None else parent.is_sampled
    return _tracer.begin(name, parent, kind) if is_sampled else None


def follow(name: str, traceparent: str, kind: Kind = Kind.INTERNAL) -> Span | None:
    """Begin a span where it has a parent that is sampled."""
    if _tracer is None or not traceparent:
        return None
    parent = Trace.parse(traceparent)
    return _tracer.begin(name, parent, kind) if parent is not None and parent.is_sampled else None


def block(span: Span | None) -> Traced:
    """Return the block of a span, if there is one."""
    return _NOTHING if span is None else span


def ingested(stream_id: str, first_sequence: int, frames: Frames) -> None:
    """Begin the trace of frames that were just received, by chance."""
    if _tracer is None or not _tracer.samples():
        return
    received_ns = int(frames.trades.ts_recv[0]) if len(frames.trades) else 0
    span = _tracer.begin("ingest", None, began_ns=received_ns)
    span.attributes |= _place(stream_id, first_sequence, frames)
    _tracer.mark(stream_id, first_sequence + frames.count, span.trace)
    span.end()


def arrived(run: TradeRun, traceparent: str) -> None:
    """Note the trace that a run from another process has."""
    if _tracer is not None and (trace := Trace.parse(traceparent)) is not None:
        _tracer.mark(run.stream_id, run.next_sequence, trace)


def traceparent_of(run: TradeRun) -> str:
    """Return the trace of a run for another process; empty where it has none."""
    found = None if _tracer is None else _tracer.find(run)
    return "" if found is None else str(found[1])


def batches(
    name: str, runs: Iterable[TradeRun], service: str = ""
) -> contextlib.AbstractContextManager[Trace | None]:
    """Return a block that is a span of each run that is traced; it gives the last one's trace.

    Parameters
    ----------
    name : str
    runs : iterable of TradeRun
    service : str, optional
        Whose work that is, where another one's task does it.
    """
    if _tracer is None:
        return contextlib.nullcontext()
    spans = []
    for run in runs:
        found = _tracer.find(run)
        if found is not None:
            position, trace = found
            span = _tracer.begin(name, trace, service=service)
            span.attributes |= _place(run.stream_id, run.first_sequence, run.frames)
            _tracer.mark(run.stream_id, position, span.trace)
            spans.append(span)
    return _together(spans) if spans else contextlib.nullcontext()


@contextlib.contextmanager
def _together(spans: list[Span]) -> Iterator[Trace]:
    with contextlib.ExitStack() as stack:
        for span in spans:
            stack.enter_context(span)
        yield spans[-1].trace


def _place(stream_id: str, first_sequence: int, frames: Frames) -> Mapping[str, str | int]:
    return {
        "mdtool.stream": stream_id,
        "mdtool.sequence": first_sequence,
        "mdtool.frames": frames.count,
    }
