"""Bars of real files against the plain reference and Databento's own OHLCV records."""

from __future__ import annotations

from pathlib import Path

import databento_dbn as dbn
import numpy as np
import pytest
import zstandard

from mdtool.core.records import index_timestamps
from mdtool.engine.bar_stream import BarStream
from mdtool.engine.bars import TimeBars
from mdtool.engine.timed_trades import TimedTrades
from tests.reference import bars as reference
from tests.support.instruments import bare, batch, index_of

SECOND = 10**9


def decoded(path: Path) -> tuple[dbn.Metadata, list]:
    """Records as databento_dbn reads them, one object each."""
    data = path.read_bytes()
    if path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress(data)
    decoder = dbn.DBNDecoder()
    decoder.write(data)
    metadata, *records = decoder.decode()
    return metadata, records


def arrays(records: list) -> np.ndarray:
    return np.frombuffer(b"".join(bytes(record) for record in records), records[0]._dtypes)


def trades_in(records: list, clock: str = "ts_recv") -> list[reference.Trade]:
    return [
        reference.Trade(
            index_of(record.publisher_id, record.instrument_id),
            record.price,
            record.size,
            getattr(record, clock),
        )
        for record in records
        if str(record.action) == "T"
    ]


def bars_of(array: np.ndarray, interval: int, clock: str = "ts_recv", step: int = 10**6) -> list:
    engine = TimeBars(interval)
    closed = [
        engine.update(TimedTrades.of(batch(array[i : i + step]), clock))
        for i in range(0, len(array), step)
    ]
    assert engine.late == 0
    return np.concatenate([*closed, engine.close_all()]).tolist()


@pytest.fixture(scope="module")
def crude(real_data) -> list:
    return decoded(real_data / "CLX5_mbo.dbn")[1]


@pytest.mark.parametrize("clock", ["ts_recv", "ts_event"])
@pytest.mark.parametrize("interval", [SECOND, 60 * SECOND, 7 * SECOND, 86_400 * SECOND])
def test_bars_of_an_order_file_follow_the_rules(crude, interval, clock):
    expected, late = reference.time_bars(trades_in(crude, clock), interval)
    assert late == 0
    assert len(expected) > 0
    assert bars_of(arrays(crude), interval, clock) == expected


def test_sixty_bars_of_a_second_make_one_of_a_minute(crude):
    seconds = bars_of(arrays(crude), SECOND)
    minutes = bars_of(arrays(crude), 60 * SECOND)
    summed: dict[int, list[int]] = {}
    for _, start, open_, high, low, close, volume, count in seconds:
        minute = summed.setdefault(
            start // (60 * SECOND) * 60 * SECOND, [open_, high, low, close, 0, 0]
        )
        minute[1] = max(minute[1], high)
        minute[2] = min(minute[2], low)
        minute[3] = close
        minute[4] += volume
        minute[5] += count
    assert {bar[1]: list(bar[2:]) for bar in minutes} == summed
    assert sum(bar[-1] for bar in minutes) == len(trades_in(crude))


@pytest.mark.parametrize("step", [1, 101, 4096])
def test_the_size_of_batches_changes_nothing(crude, step):
    array = arrays(crude)[:8_000]
    assert bars_of(array, SECOND, step=step) == bars_of(array, SECOND)


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
@pytest.mark.parametrize("schema", ["trades", "tbbo"])
def test_trades_of_every_schema_and_version_make_the_same_bar(real_data, schema, version):
    _, records = decoded(real_data / "dbn" / f"test_data.{schema}.{version}.dbn.zst")
    stream = BarStream(TimeBars(SECOND))
    written = [*bare(stream.update(batch(arrays(records)))), *bare(stream.close())]
    assert len(written) == 1
    (bar,) = written[0]
    assert (bar["open"], bar["high"], bar["low"], bar["close"]) == (3_720_250_000_000,) * 4
    assert bar["volume"] == 26


def test_records_are_those_of_databento(real_data):
    """The vendor's first bar is of the second in which the trades fixture begins."""
    _, theirs = decoded(real_data / "dbn" / "test_data.ohlcv-1s.v3.dbn.zst")
    _, trades = decoded(real_data / "dbn" / "test_data.trades.v3.dbn.zst")
    stream = BarStream(TimeBars(SECOND))
    ours = [*bare(stream.update(batch(arrays(trades)))), *bare(stream.close())][0]
    same = ["length", "rtype", "publisher_id", "instrument_id", "ts_event"]
    assert ours[same].tolist() == arrays(theirs)[:1][same].tolist()
    assert index_timestamps(ours).tolist() == [1_609_160_400 * SECOND]
    assert stream.schema == "ohlcv-1s"
