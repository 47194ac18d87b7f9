"""Depth records as text: the kernel writes what databento_dbn writes, byte for byte."""

import io

import databento_dbn as dbn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.core.dtypes import MBO, MBP1, MBP10, record_length
from mdtool.core.symbology import dated_mappings
from mdtool.wire import text
from mdtool.wire.dbn_metadata import make_metadata
from mdtool.wire.mbp_text import MbpText
from mdtool.wire.text import CsvEncoder, JsonEncoder, SymbolEndings
from tests.support.instruments import batch, named

DAY_NS = 86_400 * 10**9
EXTREMES = [0, 1, 9, 10, 2**31 - 1, 2**32 - 1, 2**62, 2**63 - 1, -1, -(2**63), 64_830_000_000]


def theirs(records, is_json, intervals=None):
    written = io.BytesIO()
    transcoder = dbn.Transcoder(
        written,
        dbn.Encoding("json" if is_json else "csv"),
        dbn.Compression("none"),
        pretty_px=False,
        pretty_ts=False,
        map_symbols=intervals is not None,
        symbol_interval_map=intervals,
        has_metadata=False,
        schema=dbn.Schema("mbp-10" if records.dtype == MBP10 else "mbp-1"),
        input_version=3,
    )
    transcoder.write(records.tobytes())
    transcoder.flush()
    lines = written.getvalue()
    return lines if is_json else lines[lines.index(b"\n") + 1 :]


@st.composite
def depth_records(draw):
    """Records of any content, whose levels are often those of the record before."""
    dtype = draw(st.sampled_from([MBP1, MBP10]))
    n = draw(st.integers(1, 8))
    words = np.empty((n, dtype.itemsize // 8), np.int64)
    word = st.one_of(st.sampled_from(EXTREMES), st.integers(-(2**63), 2**63 - 1))
    pool = draw(st.lists(st.lists(word, min_size=4, max_size=4), min_size=1, max_size=3))
    for row in words:
        row[:6] = draw(st.lists(word, min_size=6, max_size=6))
        for at in range(6, words.shape[1], 4):
            row[at : at + 4] = draw(st.sampled_from(pool))
    records = words.reshape(-1).view(dtype)
    records["length"] = record_length(dtype)
    records["rtype"] = 10 if dtype == MBP10 else 1
    records["action"] = draw(st.sampled_from([b"A", b"C", b"M", b"R", b"T", b"N"]))
    records["side"] = draw(st.sampled_from([b"A", b"B", b"N"]))
    return records


@pytest.mark.parametrize("is_json", [True, False])
@given(records=depth_records())
def test_any_record(is_json, records):
    assert MbpText(is_json).encode(batch(records)) == theirs(records, is_json)


@pytest.mark.parametrize("is_json", [True, False])
@given(records=depth_records(), ids=st.lists(st.sampled_from([1, 2, 3]), min_size=8, max_size=8))
def test_with_symbols_by_date(is_json, records, ids):
    metadata = make_metadata("XNAS.ITCH", "mbp-10", 0, 9 * DAY_NS, {1: "A B.C", 2: 'Z "1", Ä'})
    records["instrument_id"] = ids[: len(records)]
    records["ts_recv"] %= np.uint64(9 * DAY_NS)
    encoder = MbpText(is_json, SymbolEndings(is_json))
    intervals = {}
    for interval in dated_mappings(metadata):
        dates = (interval.first_date, interval.end_date, interval.name)
        intervals.setdefault(interval.instrument_id, []).append(dates)
    assert encoder.encode(named(records, metadata)) == theirs(records, is_json, intervals)


@pytest.mark.parametrize("is_json", [True, False])
def test_what_wants_an_escape_is_left_to_databento(is_json):
    records = np.zeros(2, MBP10)
    assert MbpText(is_json).encode(batch(records)) is None, "an action of NUL"
    records["action"], records["side"] = b"A", b"B"
    assert MbpText(is_json).encode(batch(records)) is not None
    unnamed = MbpText(is_json, SymbolEndings(is_json)).encode(batch(records))
    assert unnamed.splitlines()[0].endswith(b'"symbol":null}' if is_json else b",")
    assert MbpText(is_json).encode(batch(np.zeros(2, MBO))) is None


@pytest.mark.parametrize("encoder", [JsonEncoder, CsvEncoder])
def test_encoders_change_over_without_a_seam(encoder, monkeypatch):
    monkeypatch.setattr(text, "KERNEL_FROM_RECORDS", 50)
    records = np.zeros(100, MBP10)
    records["length"], records["rtype"] = record_length(MBP10), 10
    records["action"], records["side"] = b"A", b"B"
    records["price"] = np.arange(100)
    one_by_one = encoder()
    assert b"".join(one_by_one.encode(batch(records[i : i + 1])) for i in range(100)) == theirs(
        records, encoder is JsonEncoder
    )
