"""Children's lines on the supervisor's stderr."""

from __future__ import annotations

import io
import json

import pytest

from mdtool.services.supervisor.output import MAX_LINE_BYTES, LineSplitter, styles, write_line
from mdtool.services.supervisor.programs import Program


class _Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self):
        return True


def programs(*names):
    return [Program(name, ()) for name in names]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_come_whole_whatever_the_chunks(size):
    data = "one\n\nzwölf\r\nlast".encode()
    splitter = LineSplitter()
    lines = []
    for start in range(0, len(data), size):
        lines += splitter.feed(data[start : start + size])
    assert lines + splitter.finish() == ["one", "", "zwölf", "last"]


def test_nothing_is_left_after_a_whole_line():
    splitter = LineSplitter()
    assert splitter.feed(b"one\n") == ["one"]
    assert splitter.finish() == []


def test_a_line_without_end_comes_in_pieces():
    splitter = LineSplitter()
    pieces = [line for _ in range(100) for line in splitter.feed(b"x" * 10_000)]
    pieces += splitter.finish()
    assert "".join(pieces) == "x" * 1_000_000
    assert max(map(len, pieces)) <= MAX_LINE_BYTES + 10_000


def test_bytes_that_are_no_text_are_shown_somehow():
    assert LineSplitter().feed(b"a\xffb\n") == ["a\ufffdb"]


def test_prefixes_are_aligned_and_plain_where_there_is_no_terminal():
    style = styles(programs("gateway", "serve-tcp"), "text", io.StringIO())
    assert style["gateway"]("ready") == "gateway   | ready"
    assert style["serve-tcp"]("ready") == "serve-tcp | ready"
    assert style["gateway"]("") == "gateway   |"


def test_prefixes_differ_in_colour_on_a_terminal(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    style = styles(programs("gateway", "serve-tcp"), "text", _Terminal())
    assert style["gateway"]("ready") == "\x1b[36mgateway   |\x1b[0m ready"
    assert style["serve-tcp"]("ready") == "\x1b[33mserve-tcp |\x1b[0m ready"


def test_no_color_is_honoured(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert styles(programs("gateway"), "text", _Terminal())["gateway"]("ready") == "gateway | ready"


def test_json_lines_stay_json_and_say_whose_they_are():
    style = styles(programs("gateway"), "json", _Terminal())["gateway"]
    assert json.loads(style('{"level": "warning", "message": "late"}')) == {
        "service": "gateway",
        "level": "warning",
        "message": "late",
    }


@pytest.mark.parametrize("line", ["mdtool: port 8080 is in use", "[1]", "7", ""])
def test_other_lines_become_json(line):
    entry = json.loads(styles(programs("gateway"), "json")["gateway"](line))
    assert (entry["service"], entry["level"], entry["message"]) == ("gateway", "info", line)


def test_a_line_that_cannot_be_written_is_dropped(monkeypatch):
    class Gone(io.StringIO):
        def write(self, _text):
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Gone())
    write_line("whoever reads this")
