"""Records as text: the kernel writes what databento_dbn writes, byte for byte."""

import io

import databento_dbn as dbn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.core.dtypes import RTYPE_MBO, record_length
from mdtool.core.records import with_ts_out
from mdtool.core.symbology import dated_mappings
from mdtool.wire import record_text, text
from mdtool.wire.dbn import DbnDecoder
from mdtool.wire.dbn_metadata import make_metadata
from mdtool.wire.dbn_records import DTYPES, SCHEMAS
from mdtool.wire.text import TextEncoder
from tests.support.instruments import batch, named

DAY_NS = 86_400 * 10**9
EDGES = [
    *(0, 1, 9, 10, 99, 100, 999, 1000, 9_999, 10**4, 10**7, 10**8 - 1, 10**8, 10**9, 10**16),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 64_830_000_000),
    *(-1 % 2**64, -37_630_000_000 % 2**64, 1_714_521_600_123_456_789, 951_782_400 * 10**9),
]
CHARACTERS = st.one_of(st.sampled_from(b"ABCMRTFN"), st.integers(0, 255))
STRINGS = st.one_of(
    st.sampled_from(
        [b"", b"ESM4", b"A/B", b"\x0e\x1f", b'"', b"a,b", b"a\\b\tc", b"\xc3\x84", b"\xff", b"\x7f"]
    ),
    st.binary(max_size=12),
    st.just(b"x" * 400),
)
OLDER = {
    1: {19: dbn.InstrumentDefMsgV1, 24: dbn.StatMsgV1},
    2: {19: dbn.InstrumentDefMsgV2, 24: dbn.StatMsgV1},
}
STYLES = [
    pytest.param(is_json, is_pretty, id=f"{name}-{'pretty' if is_pretty else 'raw'}")
    for name, is_json in (("json", True), ("csv", False))
    for is_pretty in (False, True)
]


@pytest.fixture(autouse=True)
def kernel(monkeypatch):
    monkeypatch.setattr(text, "uses_kernel", lambda _n_bytes: True)


def theirs(data, schema, is_json, is_pretty, intervals=None, version=3, ts_out=False):
    written = io.BytesIO()
    transcoder = dbn.Transcoder(
        written,
        dbn.Encoding("json" if is_json else "csv"),
        dbn.Compression("none"),
        pretty_px=is_pretty,
        pretty_ts=is_pretty,
        map_symbols=intervals is not None,
        symbol_interval_map=intervals,
        has_metadata=False,
        ts_out=ts_out,
        schema=dbn.Schema(schema),
        input_version=version,
    )
    transcoder.write(data)
    transcoder.flush()
    lines = written.getvalue()
    return lines if is_json else lines[lines.index(b"\n") + 1 :]


def ours(records, is_json, is_pretty, *, maps_symbols=False):
    encoder = TextEncoder(is_json, maps_symbols, is_pretty)
    return b"".join(map(bytes, encoder.encode(records)))


def fill(draw, dtype, rtype, n):
    """Return records of any content, whose levels are often those of the record before."""
    records = np.zeros(n, dtype)
    pool = {}
    for name in dtype.names:
        of = dtype[name]
        if of.kind == "S":
            values = CHARACTERS.map(lambda code: bytes([code])) if of.itemsize == 1 else STRINGS
        else:
            bits = 8 * of.itemsize
            values = st.one_of(st.sampled_from(EDGES), st.integers(0, 2**bits - 1)).map(
                lambda value, bits=bits: value % 2**bits
            )
        drawn = draw(st.lists(values, min_size=n, max_size=n))
        if of.kind == "S":
            records[name] = drawn
        else:
            records[name] = np.array(drawn, f"u{of.itemsize}").view(of)
        if name[-2:].isdigit():
            records[name] = pool.setdefault(name[:-2], records[name][0])
    records["length"] = record_length(dtype)
    records["rtype"] = rtype
    return records


@st.composite
def any_records(draw, rtypes=tuple(DTYPES)):
    rtype = draw(st.sampled_from(rtypes))
    return fill(draw, DTYPES[rtype], rtype, draw(st.integers(1, 4)))


@pytest.mark.parametrize(("is_json", "is_pretty"), STYLES)
class TestAnyRecord:
    @given(data=st.data())
    def test_of_every_schema(self, is_json, is_pretty, data):
        written = [rtype for rtype in DTYPES if is_json or rtype in SCHEMAS]
        records = data.draw(any_records(written))
        schema = SCHEMAS.get(int(records["rtype"][0]), "mbo")
        wanted = theirs(records.tobytes(), schema, is_json, is_pretty)
        assert ours(batch(records), is_json, is_pretty) == wanted

    @given(data=st.data())
    def test_with_ts_out(self, is_json, is_pretty, data):
        written = [rtype for rtype in DTYPES if is_json or rtype in SCHEMAS]
        records = data.draw(any_records(written))
        times = st.one_of(st.sampled_from(EDGES), st.integers(0, 2**64 - 1))
        ts_out = data.draw(st.lists(times, min_size=len(records), max_size=len(records)))
        sent = with_ts_out(records, np.array(ts_out, np.uint64))
        schema = SCHEMAS.get(int(records["rtype"][0]), "mbo")
        wanted = theirs(sent.tobytes(), schema, is_json, is_pretty, ts_out=True)
        stream = batch(records)
        stream.ts_out = np.array(ts_out, np.uint64)
        encoder = TextEncoder(is_json, False, is_pretty, has_ts_out=True)
        assert b"".join(map(bytes, encoder.encode(stream))) == wanted

    @given(data=st.data(), ids=st.lists(st.sampled_from([1, 2, 3]), min_size=5, max_size=5))
    def test_with_symbols_by_date(self, is_json, is_pretty, data, ids):
        metadata = make_metadata("XNAS.ITCH", "mbp-10", 0, 9 * DAY_NS, {1: "A B.C", 2: 'Z "1", Ä'})
        records = data.draw(any_records(sorted(SCHEMAS)))
        records["instrument_id"] = ids[: len(records)]
        for name in {"ts_recv", "ts_event"} & set(records.dtype.names):
            records[name] %= np.uint64(9 * DAY_NS)
        intervals = {}
        for interval in dated_mappings(metadata):
            dates = (interval.first_date, interval.end_date, interval.name)
            intervals.setdefault(interval.instrument_id, []).append(dates)
        schema = SCHEMAS[int(records["rtype"][0])]
        wanted = theirs(records.tobytes(), schema, is_json, is_pretty, intervals)
        assert ours(named(records, metadata), is_json, is_pretty, maps_symbols=True) == wanted

    @pytest.mark.parametrize("version", [1, 2])
    @given(data=st.data())
    def test_of_older_versions(self, version, is_json, is_pretty, data):
        rtype = data.draw(st.sampled_from(sorted(OLDER[version])))
        older = fill(data.draw, np.dtype(OLDER[version][rtype]._dtypes), rtype, 2)
        for name, of in older.dtype.fields.items():
            if of[0].kind == "S":
                older[name] = b"A"
        header = dbn.Metadata(
            version=version, dataset="XNAS.ITCH", start=0, schema=dbn.Schema(SCHEMAS[rtype]),
            stype_in=dbn.SType.RAW_SYMBOL, stype_out=dbn.SType.INSTRUMENT_ID,
            symbols=[], partial=[], not_found=[], mappings=[],
        )  # fmt: skip
        [upgraded] = DbnDecoder().feed(header.encode() + older.tobytes())
        wanted = theirs(older.tobytes(), SCHEMAS[rtype], is_json, is_pretty, version=version)
        assert ours(batch(upgraded), is_json, is_pretty) == wanted


@pytest.mark.parametrize(("is_json", "is_pretty"), STYLES)
def test_the_room_for_text_limits_nothing(is_json, is_pretty, monkeypatch):
    monkeypatch.setattr(record_text, "ROOM_BYTES", 1)
    records = np.zeros(50, DTYPES[RTYPE_MBO])
    records["length"], records["rtype"] = record_length(records.dtype), RTYPE_MBO
    records["order_id"] = np.arange(50)
    records["action"][20] = b"\x80"
    wanted = theirs(records.tobytes(), "mbo", is_json, is_pretty)
    assert ours(batch(records), is_json, is_pretty) == wanted


@pytest.mark.parametrize("is_json", [True, False])
def test_encoders_change_over_without_a_seam(is_json, monkeypatch):
    monkeypatch.setattr(text, "uses_kernel", lambda n_bytes: n_bytes > 50 * 368)
    records = np.zeros(100, DTYPES[10])
    records["length"], records["rtype"] = record_length(records.dtype), 10
    records["action"], records["side"] = b"A", b"B"
    records["price"] = np.arange(100)
    encoder = TextEncoder(is_json)
    lines = [bytes(t) for i in range(100) for t in encoder.encode(batch(records[i : i + 1]))]
    assert b"".join(lines) == theirs(records.tobytes(), "mbp-10", is_json, is_pretty=False)


def test_every_layout_is_of_whole_words():
    assert all(dtype.itemsize % 8 == 0 for dtype in DTYPES.values())
