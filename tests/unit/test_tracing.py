"""Traces: what is sampled, how a batch is found again, and what a receiver costs that hangs."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from mdtool.adapters import otlp
from mdtool.core import logs, tracing
from mdtool.core.errors import ConfigError
from mdtool.core.symbols import SymbolTable
from mdtool.core.tracing import Kind, Trace, Tracer
from mdtool.core.trades import Frames, TradeRun, Trades
from tests.support.services import logged

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def spans():
    """What is recorded by a tracer that samples everything."""
    ended = []
    tracing.install(Tracer("gateway", 1.0, ended.append))
    yield ended
    tracing.install(None)


def run(first, count, stream="s"):
    return TradeRun(SymbolTable(), stream, first, Frames.empty(count))


@pytest.mark.parametrize(
    ("text", "is_sampled"),
    [
        (PARENT, True),
        (PARENT[:-2] + "00", False),
        (PARENT[:-2] + "03", True),
        ("cc" + PARENT[2:] + "-what-a-later-version-adds", True),
        (PARENT + "-more", None),
        ("ff" + PARENT[2:], None),
        (PARENT.upper(), None),
        (f"00-{'0' * 32}-{'1' * 16}-01", None),
        (f"00-{'1' * 32}-{'0' * 16}-01", None),
        ("", None),
        ("00-", None),
    ],
)
def test_a_traceparent_is_as_w3c_has_it(text, is_sampled):
    trace = Trace.parse(text)
    assert (None if trace is None else trace.is_sampled) == is_sampled
    if text == PARENT:
        assert str(trace) == PARENT


def test_nothing_is_recorded_or_imported_while_it_is_off():
    assert tracing.begin("x", PARENT) is None
    assert tracing.traceparent_of(run(0, 1)) == ""
    with tracing.batches("apply", [run(0, 1)]) as trace:
        assert trace is None
    code = (
        "import sys, mdtool.services.gateway.server, mdtool.services.aggregator.server\n"
        "import mdtool.services.ingest.server\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'requests'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_parent_decides_and_chance_does_without_one():
    ended = []
    tracing.install(Tracer("gateway", 0.0, ended.append))
    try:
        assert tracing.begin("x") is None
        assert tracing.begin("x", PARENT[:-2] + "00") is None
        assert tracing.follow("x", "") is None
        with tracing.block(tracing.begin("GET /", PARENT, Kind.SERVER)) as span:
            assert tracing.current() == str(span.trace)
            assert tracing.follow("call", tracing.current()).parent_id == span.trace.span_id
        assert tracing.current() == ""
    finally:
        tracing.install(None)
    (recorded,) = ended
    assert str(recorded.trace).startswith(PARENT[:36])
    assert f"{recorded.parent_id:016x}" == PARENT[36:52]


def test_a_batch_is_found_by_its_place_however_it_is_joined_or_cut(spans):
    tracing.ingested("s", 0, Frames.empty(10))
    (ingest,) = spans
    assert tracing.traceparent_of(run(0, 100)) == str(ingest.trace)
    assert tracing.traceparent_of(run(9, 1)) == str(ingest.trace)
    assert tracing.traceparent_of(run(0, 9)) == ""
    assert tracing.traceparent_of(run(10, 90)) == ""
    assert tracing.traceparent_of(run(0, 100, "other")) == ""
    with tracing.batches("apply", [run(0, 100), run(0, 5, "other")]) as trace:
        pass
    with tracing.batches("commit", [run(0, 100)]):
        pass
    _, apply, commit = spans
    assert trace == apply.trace
    assert (apply.parent_id, commit.parent_id) == (ingest.trace.span_id, apply.trace.span_id)
    assert commit.attributes["mdtool.frames"] == 100


def test_a_span_that_fails_says_why(spans):
    with pytest.raises(ValueError, match="odd"), tracing.block(tracing.begin("x")):
        raise ValueError("odd")
    assert spans[0].error == "ValueError: odd"


def test_what_is_remembered_of_batches_is_bounded(spans):
    for number in range(5_000):
        tracing.ingested(f"stream-{number}", 0, Frames.empty(1))
    for number in range(5_000):
        tracing.ingested("one", number, Frames.empty(1))
    assert tracing.traceparent_of(run(0, 1, "stream-0")) == ""
    assert tracing.traceparent_of(run(4_999, 1, "one")) != ""
    assert tracing.traceparent_of(run(0, 1, "one")) == ""


def test_an_ingest_span_begins_when_the_frame_came(spans):
    column = np.array([123], np.int64)
    trades = Trades(np.zeros(1, np.uint32), column, column, column, column)
    tracing.ingested("s", 0, Frames.of(trades))
    assert spans[0].began_ns == 123


@pytest.mark.usefixtures("root_logger")
def test_log_lines_within_a_span_have_its_ids(spans, capsys):
    logs.configure("json", "info")
    with tracing.block(tracing.begin("GET /", PARENT)) as span:
        logging.getLogger("mdtool.x").info("within")
    logging.getLogger("mdtool.x").info("after")
    within, after = map(json.loads, capsys.readouterr().err.splitlines())
    assert within["trace_id"] == PARENT[3:35]
    assert int(within["span_id"], 16) == span.trace.span_id
    assert "trace_id" not in after


def test_a_receiver_that_hangs_has_bounded_memory_and_one_line(monkeypatch):
    monkeypatch.setattr(otlp, "_TIMEOUT_S", 0.05)
    monkeypatch.setattr(otlp, "_COLLECT_S", 0.01)
    lines = Counter()
    with socket.create_server(("127.0.0.1", 0)) as mute, logged("mdtool.adapters.otlp") as log:
        receiver = otlp.OtlpReceiver(f"http://127.0.0.1:{mute.getsockname()[1]}")
        tracer = Tracer("gateway", 1.0, receiver.take)
        while not log.lines:
            for _ in range(1_000):
                tracer.begin("x", None).end()
        for _ in range(20_000):
            tracer.begin("x", None).end()
        assert receiver.waiting <= otlp.MAX_WAITING
        receiver.close()
        lines.update(log.lines)
    assert list(lines.values()) == [1]
    assert next(iter(lines)).startswith("traces to 127.0.0.1: not accepted by http://127.0.0.1:")


@pytest.mark.parametrize("endpoint", ["localhost:4317", "grpc://localhost:4317", "http://", "x"])
def test_an_endpoint_is_a_url_of_http(endpoint):
    with pytest.raises(ConfigError, match="is not a URL of HTTP"):
        otlp.OtlpReceiver(endpoint)
