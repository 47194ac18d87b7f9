"""`mdtool watch` in real terminals and in pipes: its table, its keys, feeds that come and go."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys

import pytest

from mdtool.wire.vwap_lines import VwapState, encode_state
from tests.support.processes import ChildProcess
from tests.support.screens import Screen, Session
from tests.support.services import port_for

WATCH = [sys.executable, "-m", "mdtool", "watch"]
UNIT = 10**9


def state(symbol: str, cents: int, volume: int = 100, vwap_cents: int | None = None) -> bytes:
    vwap = (cents if vwap_cents is None else vwap_cents) * 10**7
    return encode_state(VwapState(symbol, cents * 10**7, volume, vwap, 100, UNIT))


def some(n: int) -> bytes:
    return b"".join(state(f"SYM{number:03d}", 10_000 + number) for number in range(n))


class Feed:
    """A plain server of lines on loopback."""

    def __init__(self) -> None:
        self.port = port_for(self)
        self.listen()
        self.connection: socket.socket

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def accept(self, lines: bytes = b"") -> None:
        self.connection, _ = self.listener.accept()
        self.connection.sendall(lines)

    def send(self, lines: bytes) -> None:
        self.connection.sendall(lines)

    def stop(self) -> None:
        """Close the port too."""
        self.listener.close()
        self.drop()

    def drop(self) -> None:
        self.connection.close()

    def listen(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))


@pytest.fixture
def feed():
    feed = Feed()
    yield feed
    feed.listener.close()
    if hasattr(feed, "connection"):
        feed.connection.close()


def watch(feed: Feed, *arguments: str, **options) -> Session:
    return Session([*WATCH, feed.address, *arguments], **options)


def symbols_shown(screen: Screen | str) -> list[str]:
    return re.findall(r"^ ([A-Z]+\d*) ", str(screen), re.MULTILINE)


def has_order(*symbols: str):
    return lambda screen: symbols_shown(screen)[: len(symbols)] == list(symbols)


def row_of(page: str, symbol: str) -> list[str]:
    return next(line.split() for line in page.splitlines() if line.startswith(f" {symbol} "))


def test_prices_changes_trends_and_vwaps(feed):
    with watch(feed, size=(120, 24)) as session:
        feed.accept(state("AAPL", 20_000, 100, 19_950) + state("MSFT", 41_000))
        session.wait_for("MSFT")
        feed.send(state("AAPL", 20_500, 250, 20_000))
        page = session.wait_for("+2.50%")
        assert page.splitlines()[0].endswith("● live")
        assert "2 symbols" in page
        cells = row_of(page, "AAPL")
        assert cells[1:5] == ["205.00", "▲", "+5.00", "+2.50%"]
        assert cells[6:10] == ["200.0000", "+2.500%", "250", "100"]
        feed.send(state("AAPL", 19_000))
        assert row_of(session.wait_for("-5.00%"), "AAPL")[1:4] == ["190.00", "▼", "-10.00"]
        session.type("q")
        assert session.end() == 0
        assert session.is_restored
        assert session.screen.clears == 1


def test_a_volume_is_shown_times_its_lot(feed):
    with watch(feed, size=(120, 24)) as session:
        of_a_lot = VwapState("BTC/USD", 10**14, 123_456, 10**14, 100, UNIT, 10_000)
        feed.accept(encode_state(of_a_lot) + state("MSFT", 41_000, 1_500))
        page = session.wait_for("MSFT")
        assert "1.23456" in row_of(page, "BTC/USD")
        assert "1,500" in row_of(page, "MSFT")
        session.type("q")
        assert session.end() == 0


def test_sorting_by_each_column_and_the_other_way_round(feed):
    with watch(feed, size=(120, 24)) as session:
        feed.accept(state("A", 300, 1, 100) + state("B", 200, 3) + state("C", 100, 2, 200))
        session.wait_for(has_order("A", "B", "C"))
        session.type("r")
        session.wait_for(has_order("C", "B", "A"))
        for key, title, order in (
            ("s", "price▼", "ABC"),
            ("r", "price▲", "CBA"),
            ("\x1b[C", "change %▼", "ABC"),
            ("s", "vs vwap▼", "ABC"),
            ("s", "volume▼", "BCA"),
            ("S", "vs vwap▼", "ABC"),
            ("\x1b[D", "change %▼", "ABC"),
        ):
            session.type(key)
            session.wait_for(title)
            session.wait_for(has_order(*order))


def test_a_filter_is_typed_and_removed(feed):
    with watch(feed) as session:
        feed.accept(state("AAPL", 1) + state("AMZN", 1) + state("MSFT", 1))
        session.wait_for("MSFT")
        session.type("/a")
        session.wait_for(has_order("AAPL", "AMZN"))
        session.type("mq\x7f")
        assert symbols_shown(session.wait_for(" filter AM_")) == ["AMZN"]
        session.type("\r")
        page = session.wait_for(lambda screen: str(screen).endswith("filter AM"))
        assert "q quit" in page
        session.type("s")
        session.wait_for("price▼")
        session.type("\x1b")
        session.wait_for(lambda screen: len(symbols_shown(screen)) == 3)
        session.type("/zz")
        session.wait_for("no symbol fits the filter")
        session.type("\x1b")
        session.wait_for(lambda screen: len(symbols_shown(screen)) == 3)


def test_500_symbols_are_scrolled_through(feed):
    with watch(feed) as session:
        feed.accept(some(500))
        session.wait_for("1-20 of 500")
        for keys, first in (
            ("j", "SYM001"),
            ("\x1b[B", "SYM002"),
            (" ", "SYM022"),
            ("\x1b[6~", "SYM042"),
            ("\x1b[A", "SYM041"),
            ("\x1b[5~", "SYM021"),
            ("G", "SYM480"),
            ("j", "SYM480"),
            ("g", "SYM000"),
            ("k", "SYM000"),
            ("\x1b[F", "SYM480"),
        ):
            session.type(keys)
            session.wait_for(has_order(first))


def test_it_follows_the_size_of_its_terminal(feed):
    with watch(feed, size=(120, 40)) as session:
        feed.accept(some(500))
        session.wait_for("1-36 of 500")
        for size, text in (
            ((80, 24), "1-20 of 500"),
            ((40, 7), "1-4 of 500"),
            ((26, 3), "SYM001"),
            ((20, 2), "26x3 at least"),
            ((200, 50), "updates"),
        ):
            session.resize(*size)
            session.wait_for(text)


def test_help_comes_and_goes(feed):
    with watch(feed) as session:
        feed.accept(some(1))
        session.wait_for("SYM000")
        session.type("h")
        session.wait_for("filter symbols: type")
        session.type("?")
        session.wait_for("SYM000")


def test_a_feed_that_is_unavailable_is_reconnected(feed):
    with watch(feed, size=(100, 24)) as session:
        feed.accept(some(2))
        session.wait_for("● live")
        feed.stop()
        page = session.wait_for("✗ unavailable, trying again in")
        assert len(symbols_shown(page)) == 2
        session.wait_for("Connection refused")
        feed.listen()
        feed.accept(some(3))
        session.wait_for("3 symbols")
        assert "● live" in str(session.screen)


def test_an_unavailable_feed_at_the_start_is_reconnected_too(feed):
    feed.listener.close()
    with watch(feed) as session:
        session.wait_for("✗ unavailable, trying again in")
        feed.listen()
        feed.accept(some(1))
        session.wait_for("● live")
        session.type("q")
        assert session.end() == 0


def test_garbage_is_reported_and_skipped(feed):
    with watch(feed, size=(100, 24)) as session:
        feed.accept(b"HTTP/1.1 400 Bad Request\r\n\x1b[2J\n\xff\xfe\n" + some(1) + b"{}\n")
        page = session.wait_for("4 lines were not understood")
        assert symbols_shown(page) == ["SYM000"]
        session.type("q")
        assert session.end() == 0


def test_a_feed_that_never_ends_a_line_is_disconnected(feed):
    with watch(feed) as session:
        feed.accept()
        with contextlib.suppress(OSError):
            while True:
                feed.send(b"x" * 100_000)
        session.wait_for("the peer does not send lines")


def test_only_the_selected_symbols_are_subscribed(feed):
    with watch(feed, "--symbols", "aapl,MSFT") as session:
        feed.accept(state("GOOG", 300) + state("AAPL", 100))
        assert feed.connection.recv(100) == b"SUBSCRIBE AAPL,MSFT\n"
        assert symbols_shown(session.wait_for("AAPL")) == ["AAPL"]


@pytest.mark.parametrize(
    ("keys", "status"), [("q", 0), ("\x03", 130), (signal.SIGTERM, 0), (signal.SIGHUP, 0)]
)
def test_however_it_ends_the_terminal_is_as_before(feed, keys, status):
    with watch(feed) as session:
        feed.accept(some(1))
        session.wait_for("● live")
        if isinstance(keys, str):
            session.type(keys)
        else:
            session.signal(keys)
        assert session.end() == status
        assert session.is_restored


def test_no_colour_where_it_is_not_wanted(feed):
    with watch(feed, environment={"NO_COLOR": "1"}) as session:
        feed.accept(some(1))
        session.wait_for("● live")
        feed.send(state("SYM000", 20_000))
        session.wait_for("▲")
        assert not any(re.search(r"\b(3|4|9|10)[0-7]\b", style) for style in session.screen.styles)


def test_letters_alone_where_the_terminal_has_no_more(feed):
    with watch(feed, environment={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}) as session:
        feed.accept(some(2))
        page = session.wait_for("* live")
        assert str(page).isascii()


def piped(feed: Feed, *arguments: str, **streams) -> ChildProcess:
    return ChildProcess(
        [*WATCH, feed.address, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **streams,
    )


def test_piped_it_prints_the_lines_as_they_come(feed):
    with piped(feed) as process:
        lines = state("AAPL", 100) + b'{"error":"no"}\n'
        feed.accept(lines[:10])
        feed.send(lines[10:])
        assert process.stdout.readline() + process.stdout.readline() == lines
        feed.drop()
        assert b"the feed closed the connection; trying again" in process.stderr.readline()
        feed.accept(lines)
        assert process.stdout.readline() + process.stdout.readline() == lines
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130


def test_piped_it_prints_the_selected_symbols_and_the_errors_of_the_feed(feed):
    with piped(feed, "--symbols", "AAPL") as process:
        lines = state("AAPL", 100) + b'{"error":"no"}\n'
        feed.accept(state("GOOG", 300) + lines)
        assert process.stdout.readline() + process.stdout.readline() == lines
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130


def test_piped_it_ends_quietly_with_its_reader(feed):
    with piped(feed) as process:
        feed.accept(some(1))
        process.stdout.readline()
        process.stdout.close()
        with contextlib.suppress(OSError):
            while process.poll() is None:
                feed.send(some(1))
        process.wait()
        assert process.returncode == 0
        assert process.stderr.read() == b""


def test_piped_it_ends_with_its_reader_while_the_feed_is_unavailable_too(feed):
    with piped(feed) as process:
        feed.accept(some(1))
        process.stdout.readline()
        process.stdout.close()
        feed.stop()
        assert process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "'nowhere' is not an address"),
        (["--symbols", ","], "SUBSCRIBE names no symbol"),
        (["--symbols", "A\nB"], "is not a valid symbol"),
        (["--symbols", b"A\xff"], "is not a valid symbol"),
        (["--book", "A"], "is not the URL of a gateway"),
        (["http://a", "--book", "A", "--symbols", "A"], "leave out --symbols and --columns"),
        (["http://a", "--columns", "price"], "needs a terminal and no --plain"),
    ],
)
def test_what_cannot_be_is_one_line(arguments, message):
    done = subprocess.run([*WATCH, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
