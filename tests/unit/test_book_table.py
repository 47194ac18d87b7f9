"""Snapshots of books as tables: rows that fit the terminal, and ladders of a chosen depth."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mdtool.cli.app import app
from mdtool.cli.output_options import OutputOptions

SAMPLE = Path(__file__).parents[2] / "sample_data" / "mbo.dbn.zst"
SYMBOLS = ["AAPL", "MSFT", "GOOG", "AMZN", "TSLA"]

pytestmark = pytest.mark.usefixtures("no_settings", "root_logger")


@pytest.fixture
def book(monkeypatch):
    """Run `mdtool book` on the sample as on a terminal of a width."""
    monkeypatch.setattr(OutputOptions, "is_table", property(lambda _: True))

    def run(*arguments, width):
        monkeypatch.setenv("COLUMNS", str(width))
        done = CliRunner().invoke(app, ["book", str(SAMPLE), *arguments], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout.splitlines()

    return run


@pytest.mark.parametrize("width", [80, 100, 200])
def test_rows_fit_the_terminal(book, width):
    header, *rows = book(width=width)
    assert [row.split()[0] for row in rows] == SYMBOLS
    assert max(map(len, [header, *rows])) <= width
    columns = ["symbol", "timestamp", "bid_sz", "bid", "ask", "ask_sz", "levels", "orders"]
    assert header.split() == (columns if width > 80 else columns[:6])


def test_a_depth_is_shown_of_every_book(book):
    lines = [line for line in book("--depth", "2", width=80) if line]
    titles = [number for number, line in enumerate(lines) if line[:4] in SYMBOLS]
    assert [lines[number].split()[0] for number in titles] == SYMBOLS
    for number in titles:
        assert lines[number + 1].split() == ["orders", "size", "bid", "ask", "size", "orders"]
        assert [len(line.split()) for line in lines[number + 2 : number + 4]] == [6, 6]
        assert "ask levels" in lines[number + 4]
