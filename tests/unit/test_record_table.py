"""Records as a table, on terminals of any width."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mdtool.adapters.dbn_files import open_merged
from mdtool.adapters.dbn_trades import TradeSource
from mdtool.cli.record_table import RecordTable
from mdtool.core.dtypes import RTYPE_TRADE
from mdtool.engine.bar_stream import BarStream
from mdtool.wire.source_stream import Lot, SourceEncoder, Trade

TRADES = str(Path(__file__).parents[2] / "sample_data" / "trades.dbn.zst")


@pytest.fixture
def shown(monkeypatch, capsys):
    """Show bars in a terminal of some columns; return the lines."""

    def show(columns: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        table = RecordTable()
        stream = BarStream.parse("1m", extras=("count", "vwap"))
        with TradeSource(open_merged([TRADES]), stream.bar_rtypes) as source:
            for trades in source:
                for bars in stream.update(trades):
                    table.write(bars)
        return capsys.readouterr().out.splitlines()

    return show


ALL = "symbol ts_event open high low close volume count vwap"


@pytest.mark.parametrize(
    ("columns", "fields", "left_out"),
    [
        pytest.param(120, ALL, "", id="wide"),
        pytest.param(94, ALL, "", id="narrow numbers"),
        pytest.param(86, ALL, "", id="narrow gaps"),
        pytest.param(
            80,
            "symbol ts_event open high low close count vwap",
            "volume",
            id="what was asked for is the last to go",
        ),
        pytest.param(
            60, "symbol ts_event open count vwap", "high, low, close, volume", id="little room"
        ),
        pytest.param(
            12, "symbol count", "ts_event, open, high, low and 3 more", id="the symbol stays"
        ),
    ],
)
def test_columns_become_narrow_before_some_are_left_out_which_is_said(
    shown, caplog, columns, fields, left_out
):
    with caplog.at_level(logging.INFO):
        header, *rows = shown(columns)
    assert header.split() == fields.split()
    assert all(len(row.split()) == len(header.split()) for row in rows)
    assert max(map(len, [header, *rows])) <= columns
    said = f"not in {columns} columns: {left_out}; a wider terminal or --csv shows all"
    assert caplog.messages == ([said] if left_out else [])


def test_sizes_and_volumes_are_shown_times_their_lot(tmp_path, capsys):
    begin_ns = 1_796_169_600_000_000_000
    encoder = SourceEncoder("TEST", begin_ns, "X")
    trades = [Trade("BTC/USD", "5", size, begin_ns) for size in ("0.5", "0.00000001")]
    encoder.add([Lot("BTC/USD", "0.00000001"), *trades, Lot("AAPL", "1")], begin_ns)
    encoder.add([Trade("AAPL", "5", "7", begin_ns)], begin_ns)
    path = tmp_path / "live.dbn"
    path.write_bytes(encoder.take())
    table, stream = RecordTable(), BarStream.parse("1s")
    with TradeSource(open_merged([str(path)], "trades"), stream.bar_rtypes) as source:
        for batch in source:
            if batch.rtype == RTYPE_TRADE:
                table.write(batch)
                bars = list(stream.update(batch))
        for batch in [*bars, *stream.close()]:
            table.write(batch)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    cells = [dict(zip(lines[0], line, strict=True)) for line in lines[1:4]]
    assert [each["size"] for each in cells] == ["0.5", "0.00000001", "7"]
    bars_at = next(n for n, line in enumerate(lines) if "volume" in line)
    volumes = {line[0]: line[lines[bars_at].index("volume")] for line in lines[bars_at + 1 :]}
    assert volumes == {"BTC/USD": "0.50000001", "AAPL": "7"}
