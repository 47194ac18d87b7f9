"""`mdtool book --live` in real terminals: what they show, which keys do what, how they are left."""

# ruff: noqa: RUF001 - the signs that are drawn

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from mdtool.core.dtypes import MBO
from mdtool.wire.dbn import encode_records
from tests.reference import dbn_streams as streams
from tests.support.processes import ChildProcess
from tests.support.screens import Session

BOOK = [sys.executable, "-m", "mdtool", "book"]
HOUR = 3600 * 10**9
CTRL_C, CTRL_Z, CTRL_BACKSLASH = "\x03", "\x1a", "\x1c"

BROKEN_INSIDE = """
import sys
from mdtool.cli.live import feed
from mdtool.cli import app

def fail(self, records):
    raise ZeroDivisionError("a bug")

feed.Feed._apply = fail
sys.argv = ["mdtool", "book", *sys.argv[1:]]
app.main()
"""
"""Runs the view with a bug in its feeding thread."""


def view(*arguments: object, **options) -> Session:
    return Session([*BOOK, *map(str, arguments), "--live"], **options)


def orders(n: int = 10, step_ns: int = HOUR) -> bytes:
    """A stream of two symbols' orders, AAPL's first, an event each."""
    records = streams.mbo(n, step_ns=step_ns)
    records["action"] = b"A"
    records["side"] = np.where(np.arange(n) % 4 < 2, b"B", b"A")
    records["price"] = (100 + np.arange(n) + 1000 * (records["side"] == b"A")) * 10**9
    return streams.header() + encode_records(records)


@pytest.fixture
def slow(tmp_path) -> Path:
    """Ten events, an hour apart: at their own pace none but the first ever comes."""
    path = tmp_path / "slow.dbn"
    path.write_bytes(orders())
    return path


def records_shown(screen: str) -> int:
    return int(re.search(r"records +([\d,]+)", screen)[1].replace(",", ""))


def test_a_real_file_flat_out_to_its_known_end(real_data):
    with view(real_data / "CLX5_mbo.dbn", "--speed", 0) as session:
        page = session.wait_for("ended")
        lines = page.splitlines()
        assert re.match(r" CLX5  GLBX\.MDP3 +2025-09-24 21:59:59\.999 UTC  ■ ended$", lines[0])
        assert lines[2].endswith("CROSSED   PARTIAL")
        assert re.match(r" +1 +1 .* 65\.40 │ 64\.78 .* 3 +1$", lines[4])
        assert re.search(r"orders +147 +61\+52 levels", page)
        session.type("q")
        assert session.end() == 0
        assert session.is_restored
        assert session.screen.clears == 1


def test_a_snapshot_and_what_follows_is_whole(real_data):
    with view(real_data / "ESM4_mbo_snapshot.dbn.zst", "--speed", 0, size=(120, 40)) as session:
        page = session.wait_for("ended")
        assert "PARTIAL" not in page
        assert "CROSSED" not in page
        assert "anomalies        none" in page
        assert records_shown(page) == 13_796


def test_consolidated_it_shows_one_book_of_a_symbol_and_steps_by_events_of_any(tmp_path):
    records = np.frombuffer(orders()[len(streams.header()) :], MBO).copy()
    records["instrument_id"] = 1
    records["publisher_id"] = 39 + np.arange(len(records)) % 2
    path = tmp_path / "venues.dbn"
    path.write_bytes(streams.header() + encode_records(records))
    with view(path, "--speed", 0) as session:
        page = session.wait_for("ended")
        assert "AAPL  1/2  TEST  DBEQ.BASIC.XCHI" in page
        assert records_shown(page) == 5
        session.type("q")
        assert session.end() == 0
    with view(path, "--consolidate") as session:
        session.wait_for("AAPL  TEST")
        for events in (2, 3):
            session.type("s")
            session.wait_for(lambda screen, n=events: re.search(rf"records +{n} ", str(screen)))
        assert "AAPL  TEST  2 publishers" in str(session.screen)
        session.type("0 ")
        page = session.wait_for("ended")
        assert records_shown(page) == 10
        assert re.search(r"orders +10 ", page)
        session.type("q")
        assert session.end() == 0


def test_a_file_goes_at_its_own_pace_and_keys_change_that(slow):
    with view(slow) as session:
        session.wait_for("► 1×")
        session.wait_for("AAPL  TEST")
        for keys, state in (
            ("+", "► 2×"),
            ("\x1b[A", "► 5×"),
            ("-", "► 2×"),
            ("\x1b[B", "► 1×"),
            (" ", "❚❚ paused 1×"),
            ("=", "❚❚ paused 2×"),
            (" ", "► 2×"),
            ("1", "► 1×"),
        ):
            session.type(keys)
            session.wait_for(state)
        assert records_shown(str(session.screen)) == 1
        session.type("0")
        page = session.wait_for("ended")
        assert "1/2" in page
        assert records_shown(page) == 5


def test_a_step_is_one_event_of_the_symbol_shown(slow):
    with view(slow, "--speed", 1) as session:
        session.wait_for("AAPL  TEST")  # the first event has been played
        for events in (2, 3):
            session.type("s")
            session.wait_for(lambda screen, n=events: re.search(rf"records +{n} ", str(screen)))
        assert "❚❚ paused" in str(session.screen)
        session.type("n")
        page = session.wait_for("MSFT  2/2")
        assert records_shown(page) == 2
        session.type("s")
        session.wait_for(lambda screen: re.search(r"records +3 ", str(screen)))
        session.type("p")
        page = session.wait_for("AAPL  1/2")
        assert records_shown(page) == 3


def test_help_comes_and_goes(slow):
    with view(slow) as session:
        session.wait_for("► 1×")
        session.type("?")
        assert "step: one event of this book" in session.wait_for("show or leave this help")
        session.type("h")
        session.wait_for("orders   size")


def test_a_start_is_where_the_pace_begins(slow):
    start = streams.START + 4 * HOUR + HOUR // 2
    with view(slow, "--start", start) as session:
        page = session.wait_for(lambda screen: re.search(r"records +3 ", str(screen)))
        assert "1/2" in page
        assert "► 1×" in page


def test_only_the_selected_symbols(slow):
    with view(slow, "--symbols", "MSFT", "--speed", 0) as session:
        page = session.wait_for("ended")
        assert page.startswith(" MSFT  TEST")
        assert records_shown(page) == 5


def test_the_view_follows_the_size_of_its_terminal(slow):
    with view(slow, size=(80, 24)) as session:
        session.wait_for("last trades")
        for size, is_drawn in (
            ((120, 40), lambda page: "│ last trades" in page),
            ((60, 15), lambda page: "records" in page and "last trades" not in page),
            ((20, 3), lambda page: page.startswith("30x4 at least")),
            ((80, 24), lambda page: "─ last trades" in page),
        ):
            session.resize(*size)
            session.wait_for(lambda screen, is_drawn=is_drawn: is_drawn(str(screen)))


def test_data_from_stdin_and_keys_from_the_terminal():
    data_in, data_out = os.pipe()
    with view("-", stdin=data_in) as session:
        os.close(data_in)
        with os.fdopen(data_out, "wb", buffering=0) as data:
            stream = orders()
            data.write(stream[:-100])
            page = session.wait_for(lambda screen: re.search(r"records +4 ", str(screen)))
            assert re.search(r"1/2.*● live", page)
            session.type(" ")
            session.wait_for("❚❚ paused")
            data.write(stream[-100:])
        session.type("s")
        session.wait_for(lambda screen: re.search(r"records +5 ", str(screen)))
        session.type("0 ")
        session.wait_for("ended")
        session.type("q")
        assert session.end() == 0
        assert session.is_restored


@pytest.fixture
def sender():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_a_stream_over_tcp(sender):
    host, port = sender.getsockname()
    with view(f"{host}:{port}") as session:
        connection, _ = sender.accept()
        with connection:
            stream = orders()
            connection.sendall(stream[: -5 * 56])
            page = session.wait_for(lambda screen: re.search(r"records +3 ", str(screen)))
            assert re.search(r"1/2.*● live", page)
            connection.sendall(stream[-5 * 56 :])
            session.wait_for(lambda screen: re.search(r"records +5 ", str(screen)))
        session.wait_for("ended")


def test_a_sender_s_stream_joined_and_lost(slow):
    serve = [sys.executable, "-m", "mdtool", "replay-dbn", "--serve", str(slow)]
    with ChildProcess(
        [*serve, "--speed", "1", "--port", "0", "--data-port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        said = map(re.compile(r"ready on http (\S+), dbn (\S+)").search, process.stderr)
        ready = next(filter(None, said))
        with view(ready[2]) as session:
            session.wait_for_words("waiting for its stream to begin")
            post = urllib.request.Request(f"http://{ready[1]}/start-streaming", method="POST")
            with urllib.request.urlopen(post) as answer:
                assert answer.status == 200
            page = session.wait_for(lambda screen: re.search(r"records +1 ", str(screen)))
            assert page.startswith(" AAPL")
            process.kill()
            page = session.wait_for("✗ broken")
            assert "the connection ended before the stream did" in page
            session.type("q")
            assert session.end() == 1
            assert session.is_restored


def test_quitting_does_not_wait_for_a_silent_sender(sender):
    host, port = sender.getsockname()
    with view(f"{host}:{port}") as session:
        connection, _ = sender.accept()
        with connection:
            connection.sendall(orders(1))
            session.wait_for("● live")
            session.type("q")
            assert session.end() == 0
            while connection.recv(100):  # what it asked, if anything, and then its end
                pass


def test_a_sender_that_is_not_there_is_one_line(free_port):
    with view(f"127.0.0.1:{free_port}") as session:
        assert session.end() == 1
        assert session.screen.before.startswith(
            f"mdtool: 127.0.0.1:{free_port}: Connection refused"
        )


def test_truncated_input_stays_on_the_screen_and_is_reported_at_the_end(tmp_path, monkeypatch):
    (tmp_path / "cut.dbn").write_bytes(orders()[:-1])
    monkeypatch.chdir(tmp_path)  # so that the name fits on the line
    with view("cut.dbn", "--speed", 0) as session:
        page = session.wait_for("✗ broken")
        assert records_shown(page) == 5
        assert "cut.dbn: " in page.splitlines()[-1]
        assert page.endswith("q quit")
        session.type("q")
        assert session.end() == 1
        assert session.is_restored
        assert re.fullmatch(
            r"mdtool: cut\.dbn: .* after 9 whole records\r\n", session.screen.before
        )


def test_a_crash_in_the_feeding_thread_gives_the_terminal_back(slow):
    with Session([sys.executable, "-c", BROKEN_INSIDE, str(slow), "--live"]) as session:
        assert session.end() == 1
        assert session.is_restored
        assert "mdtool: internal error: ZeroDivisionError: a bug" in session.screen.before


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGQUIT, 0), (signal.SIGINT, 130)],
)
def test_a_signal_ends_it_and_gives_the_terminal_back(slow, number, status):
    with view(slow) as session:
        session.wait_for("► 1×")
        session.signal(number)
        assert session.end() == status
        assert session.is_restored


def test_a_terminal_that_is_not_read_does_not_keep_it_from_ending(slow):
    with view(slow) as session:
        session.wait_for("► 1×")
        session.stop_reading_within_a_frame()
        session.signal(signal.SIGTERM)
        assert session.process.wait() == 0


@pytest.mark.parametrize(("keys", "status"), [(CTRL_C, 130), (CTRL_BACKSLASH, 0)])
def test_a_key_that_is_a_signal_does_too(slow, keys, status):
    with view(slow) as session:
        session.wait_for("► 1×")
        session.type(keys)
        assert session.end() == status
        assert session.is_restored


def test_killed_the_terminal_is_given_back_all_the_same(slow):
    with view(slow) as session:
        session.wait_for("► 1×")
        assert not session.is_restored
        session.signal(signal.SIGKILL)
        session.wait_for(lambda screen: not screen.is_taken)
        assert session.is_restored
        assert session.end() == -signal.SIGKILL


def test_a_closed_terminal_ends_it(slow):
    with view(slow) as session:
        session.wait_for("► 1×")
        assert session.hang_up() == 0


def test_suspended_it_restores_the_terminal_and_continued_takes_it_again(slow):
    script = f"set -m; {' '.join(BOOK)} {slow} --live; echo stopped; read -r; fg; echo ended $?"
    with Session(["bash", "-c", script]) as session:
        session.wait_for("► 1×")
        session.type(CTRL_Z)
        session.wait_for_words("stopped\r\n")
        assert not session.screen.is_taken
        session.type("\r")
        session.wait_for(lambda screen: screen.is_taken and "► 1×" in str(screen))
        session.type("q")
        session.wait_for_words("ended 0")
        assert session.end() == 0
        assert session.is_restored


def test_no_colour_where_none_is_wanted(slow):
    with view(slow, "--speed", 0, environment={"NO_COLOR": "1"}) as session:
        page = session.wait_for("ended")
        assert "PARTIAL" in page
        codes = {int(code) for style in session.screen.styles for code in style.split(";") if code}
        assert codes <= {0, 1, 2, 7}


def test_nothing_but_ascii_where_the_encoding_has_no_more(slow):
    with view(slow, "--speed", 0, environment={"PYTHONIOENCODING": "ascii"}) as session:
        page = session.wait_for("# ended")
        assert page.isascii()
        assert "|" in page


def test_without_a_terminal_it_is_rejected(slow):
    ended = subprocess.run([*BOOK, str(slow), "--live"], capture_output=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(b"mdtool: --live requires a terminal")
    with view(slow, environment={"TERM": "dumb"}) as session:
        assert session.end() == 2
        assert "requires a terminal that can move its cursor" in session.screen.before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.dbn", "--live"], "nothing.dbn: no such file"),
        (["x.dbn", "--live", "--json"], "--json: does not go with --live"),
        (["x.dbn", "--live", "--emit", "1s"], "--emit: does not go with --live"),
        (["x.dbn", "--speed", "1"], "--speed is for --live"),
        (["x.dbn", "--live", "--speed", "inf"], "--speed inf: give a number"),
    ],
)
def test_what_cannot_be_is_one_line(arguments, said):
    with Session([*BOOK, *arguments]) as session:
        assert session.end() in {1, 2}
        assert session.screen.before.startswith(f"mdtool: {said}")
        assert session.screen.before.count("\n") == 1
        assert session.is_restored


def test_a_file_without_orders_is_rejected_before_the_screen_is_taken(tmp_path):
    path = tmp_path / "trades.dbn"
    path.write_bytes(streams.header("trades") + encode_records(streams.trades(3)))
    with view(path) as session:
        assert session.end() == 1
        assert "holds trades, from which mbo cannot be taken" in session.screen.before
        assert session.screen.clears == 0


def test_frames_of_a_source_flat_out_change_what_changed_and_clear_nothing():
    """A source that never ends: frames go on and on, and none begins with an empty screen."""
    simulate = [sys.executable, "-m", "mdtool", "simulate", "--quiet"]
    with (
        ChildProcess(simulate, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as source,
        view("-", stdin=source.stdout) as session,
    ):
        source.stdout.close()
        session.wait_for("● live")
        seen = []
        for _ in range(20):
            before = str(session.screen)
            session.wait_for(lambda screen, before=before: str(screen) != before)
            seen.append(records_shown(str(session.screen)))
        assert seen == sorted(seen)
        assert session.screen.clears == 1
        session.type("q")
        assert session.end() == 0
        assert session.is_restored
