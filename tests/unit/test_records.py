import numpy as np
import pytest

from mdtool.adapters.dbn_files import open_source
from mdtool.core.dtypes import F_SNAPSHOT, MBP10, OHLCV, TRADE
from mdtool.core.errors import UsageError
from mdtool.core.records import (
    has_trades,
    index_timestamps,
    pacing_timestamps,
    timestamps,
    trades_of,
)
from tests.reference import dbn_streams as streams
from tests.support.instruments import bare


def test_the_index_timestamp_is_ts_recv_where_there_is_one():
    orders, bars = streams.mbo(3), streams.bars(3, 32)
    assert index_timestamps(orders).tolist() == orders["ts_recv"].tolist()
    assert index_timestamps(bars).tolist() == bars["ts_event"].tolist()


def test_an_undefined_time_is_minus_one():
    orders = streams.mbo(1)
    orders["ts_recv"] = 2**64 - 1
    assert index_timestamps(orders).tolist() == [-1]


def test_a_clock_that_there_is_not():
    with pytest.raises(UsageError, match="no clock 'ts_out'; choose from ts_recv, ts_event"):
        timestamps(streams.mbo(1), "ts_out")


def test_orders_of_a_snapshot_are_paced_by_when_it_was_taken():
    orders = streams.mbo(3)
    orders["ts_event"][0] -= 3 * streams.DAY
    orders["flags"][0] |= F_SNAPSHOT
    paced = pacing_timestamps(orders, "ts_event").tolist()
    assert paced == [int(orders["ts_recv"][0]), *orders["ts_event"][1:].tolist()]
    assert pacing_timestamps(orders, "ts_recv").tolist() == orders["ts_recv"].tolist()


def test_trades_of_orders_are_their_t_records():
    orders = streams.mbo(10)
    trades = trades_of(orders)
    wanted = orders[::3]
    assert trades.dtype == TRADE
    assert trades["rtype"].tolist() == [0] * 4
    assert trades["length"].tolist() == [12] * 4
    assert trades["depth"].tolist() == [0] * 4
    for name in ("publisher_id", "instrument_id", "ts_event", "ts_recv", "price", "size", "side"):
        assert trades[name].tolist() == wanted[name].tolist()


def test_trades_are_their_own_trades():
    trades = streams.trades(4)
    assert trades_of(trades) is trades


def test_which_layouts_have_trades():
    assert has_trades(MBP10)
    assert has_trades(TRADE)
    assert not has_trades(OHLCV)


def test_trades_are_those_that_the_vendor_took_out_of_the_same_records(real_data):
    def records(schema):
        with open_source(str(real_data / "dbn" / f"test_data.{schema}.v3.dbn.zst")) as opened:
            return np.concatenate([*bare(opened)])

    assert np.array_equal(trades_of(records("tbbo")), records("trades"))
