"""A synthetic exchange stands in for a file: whole events, its own metadata, an end or none."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from mdtool.adapters.simulated import SimulatedSource
from mdtool.core.dtypes import F_LAST
from mdtool.core.errors import UsageError
from mdtool.core.records import index_timestamps
from mdtool.engine.simulate import Exchange
from mdtool.engine.simulate_defaults import START_NS
from tests.support.instruments import bare

SYMBOLS = ["ABC", "XYZ"]


def all_of(source: SimulatedSource) -> np.ndarray:
    with source:
        return np.concatenate(list(bare(source)))


def test_metadata_tells_what_the_records_are():
    source = SimulatedSource(Exchange(SYMBOLS), "trades", duration_ns=10**9)
    assert str(source.metadata.schema) == "trades"
    assert (source.metadata.start, source.metadata.end) == (START_NS, START_NS + 10**9)
    assert {*next(iter(source)).symbols} == {*SYMBOLS}
    assert SimulatedSource(Exchange()).metadata.end is None


@pytest.mark.parametrize("schema", ["mbo", "trades", "mbp-1"])
def test_chunks_of_any_size_hold_the_same_records(schema):
    whole = all_of(SimulatedSource(Exchange(SYMBOLS), schema, 10**9))
    small = SimulatedSource(Exchange(SYMBOLS), schema, 10**9, chunk_records=7)
    assert all_of(small).tobytes() == whole.tobytes()
    assert index_timestamps(whole)[-1] < START_NS + 10**9


def test_no_array_is_empty():
    source = SimulatedSource(Exchange(SYMBOLS), "trades", chunk_records=1)
    assert all(len(records) for records in islice(source, 50))


def test_the_end_cuts_no_event_in_two():
    orders = Exchange(SYMBOLS).generate(5_000)
    inside = np.flatnonzero((orders["flags"][:-1] & F_LAST) == 0)
    is_second_packet = orders["ts_recv"][inside] < orders["ts_recv"][inside + 1]
    arrivals = index_timestamps(orders)[inside + 1][is_second_packet]
    assert len(arrivals)
    for arrival in arrivals[:20].tolist():
        cut = all_of(SimulatedSource(Exchange(SYMBOLS), duration_ns=arrival - START_NS))
        assert cut["flags"][-1] & F_LAST
        assert orders["ts_recv"][len(cut)] < arrival


def test_a_market_ends_before_its_clock_would(monkeypatch):
    end_ns = START_NS + 60 * 10**9
    monkeypatch.setattr("mdtool.adapters.simulated.END_NS", end_ns)
    trades = all_of(SimulatedSource(Exchange(SYMBOLS), "trades"))
    assert end_ns - 10**9 < index_timestamps(trades)[-1] < end_ns
    assert all_of(SimulatedSource(Exchange(SYMBOLS), "trades", 2**62)).tobytes() == trades.tobytes()


def test_an_unknown_schema_is_refused():
    with pytest.raises(UsageError, match="schema"):
        next(iter(SimulatedSource(Exchange(), "mbp-10")))
