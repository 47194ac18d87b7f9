"""The record layouts are DBN's, byte for byte."""

from __future__ import annotations

import databento_dbn as dbn
import numpy as np
import pytest

from mdtool.core import dtypes

SIZES = {
    "MBO": 56,
    "TRADE": 48,
    "MBP1": 80,
    "MBP10": 368,
    "OHLCV": 56,
    "STATISTICS": 80,
    "SYMBOL_MAPPING": 176,
}
RTYPES = {
    "RTYPE_MBO": dbn.RType.MBO,
    "RTYPE_TRADE": dbn.RType.MBP_0,
    "RTYPE_MBP1": dbn.RType.MBP_1,
    "RTYPE_MBP10": dbn.RType.MBP_10,
    "RTYPE_STATISTICS": dbn.RType.STATISTICS,
    "RTYPE_OHLCV_1S": dbn.RType.OHLCV_1S,
    "RTYPE_OHLCV_1M": dbn.RType.OHLCV_1M,
    "RTYPE_OHLCV_1H": dbn.RType.OHLCV_1H,
    "RTYPE_OHLCV_1D": dbn.RType.OHLCV_1D,
    "RTYPE_SYMBOL_MAPPING": dbn.RType.SYMBOL_MAPPING,
}
FLAGS = {
    "F_LAST": 128,
    "F_TOB": 64,
    "F_SNAPSHOT": 32,
    "F_MBP": 16,
    "F_BAD_TS_RECV": 8,
    "F_MAYBE_BAD_BOOK": 4,
    "F_PUBLISHER_SPECIFIC": 2,
}


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_record_sizes(name, size):
    dtype = getattr(dtypes, name)
    assert dtype.itemsize == size
    assert dtypes.record_length(dtype) * 4 == size


def test_an_mbo_record_reads_as_databento_reads_it():
    message = dbn.MBOMsg(
        publisher_id=1,
        instrument_id=5_482,
        ts_event=1_609_160_400_000_429_831,
        order_id=647_784_973_705,
        price=3_722_750_000_000,
        size=7,
        action=dbn.Action.CANCEL,
        side=dbn.Side.ASK,
        ts_recv=1_609_160_400_000_704_060,
        channel_id=3,
        ts_in_delta=22_993,
        sequence=1_170_352,
    )
    record = np.frombuffer(bytes(message), dtypes.MBO)[0]
    assert record["rtype"] == dtypes.RTYPE_MBO
    assert record["length"] == dtypes.record_length(dtypes.MBO)
    assert (record["action"], record["side"]) == (b"C", b"A")
    for field in (
        "instrument_id", "ts_event", "order_id", "price", "size", "ts_recv", "channel_id",
        "ts_in_delta", "sequence",
    ):  # fmt: skip
        assert record[field] == getattr(message, field), field


@pytest.mark.parametrize(("name", "rtype"), RTYPES.items())
def test_record_types(name, rtype):
    assert getattr(dtypes, name) == int(rtype)


@pytest.mark.parametrize(("name", "value"), FLAGS.items())
def test_flags(name, value):
    assert getattr(dtypes, name) == value
