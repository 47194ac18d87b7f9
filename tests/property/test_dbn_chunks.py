"""Whatever the pieces in which a stream's bytes come, the same records come out."""

import contextlib
from itertools import pairwise

import databento_dbn as dbn
import numpy as np
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from mdtool.core.errors import CorruptStreamError
from mdtool.wire.dbn import DbnDecoder, encode_records
from tests.reference import dbn_streams as streams

PARTS = [
    streams.mapping(1, "AAPL"),
    bytes(encode_records(streams.mbo(40))),
    bytes(encode_records(streams.bars(2, 17))),
    streams.mapping(2, "MSFT"),
    bytes(encode_records(streams.trades(3))),
]
BODY = b"".join(PARTS)
ENDS = [0]
"""Where records of the body end."""
while ENDS[-1] < len(BODY):
    ENDS.append(ENDS[-1] + 4 * BODY[ENDS[-1]])
PLAIN = streams.header(None) + BODY
FRAMES = zstandard.compress(PLAIN[:50]) + zstandard.compress(PLAIN[50:])


def fed(data: bytes, cuts: list[int]) -> bytes:
    decoder = DbnDecoder()
    edges = [0, *sorted(cuts), len(data)]
    runs = [run for begin, end in pairwise(edges) for run in decoder.feed(data[begin:end])]
    decoder.finish()
    return b"".join(run.tobytes() for run in runs)


@given(st.lists(st.integers(0, len(PLAIN)), max_size=20))
def test_a_plain_stream_may_be_cut_anywhere(cuts):
    assert fed(PLAIN, cuts) == BODY


@given(st.lists(st.integers(0, len(FRAMES)), max_size=20))
def test_a_compressed_stream_may_be_cut_anywhere(cuts):
    assert fed(FRAMES, cuts) == BODY


@given(st.integers(0, len(PLAIN) - 1), st.integers(1, 5000))
def test_a_stream_that_ends_anywhere_gives_every_whole_record(end, chunk):
    decoder = DbnDecoder()
    got = b""
    for begin in range(0, end, chunk):
        got += b"".join(
            run.tobytes() for run in decoder.feed(PLAIN[begin : min(begin + chunk, end)])
        )
    body_end = end - (len(PLAIN) - len(BODY))
    assert BODY.startswith(got)
    assert body_end - len(got) < 368
    if body_end < 0 or got != BODY[:body_end]:
        if end < 4:
            return
        with pytest.raises(CorruptStreamError) as caught:
            decoder.finish()
        assert caught.value.record == decoder.records
    else:
        decoder.finish()


@given(st.binary(min_size=1, max_size=300), st.integers(0, len(BODY)))
@example(b"\x07" + bytes(174) + b"\x2d\x07" + bytes(2), 1)  # two records of an unknown rtype
def test_random_bytes_give_the_records_before_them_and_one_kind_of_error(noise, position):
    begin = len(PLAIN) - len(BODY) + position
    decoder = DbnDecoder()
    got = b""
    with contextlib.suppress(CorruptStreamError):
        got = b"".join(run.tobytes() for run in decoder.feed(PLAIN[:begin] + noise + BODY))
        decoder.finish()
    whole = max(end for end in ENDS if end <= position)
    assert got[:whole] == BODY[:whole]


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("chunk", [1, 7, 56, 4096])
@pytest.mark.parametrize(
    "schema",
    ["mbo", "trades", "mbp-1", "mbp-10", "tbbo", "ohlcv-1s", "ohlcv-1m", "definition"],
)
def test_the_vendors_files_of_every_version_and_schema(real_data, schema, version, chunk):
    data = (real_data / "dbn" / f"test_data.{schema}.v{version}.dbn.zst").read_bytes()
    plain = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    metadata, *records = dbn.DBNDecoder().write_and_decode(plain)
    wanted = b"".join(bytes(record) for record in records)
    for stream in (data, plain):
        assert fed(stream, list(range(chunk, len(stream), chunk))) == wanted
    decoder = DbnDecoder()
    runs = decoder.feed(data)
    assert decoder.metadata == metadata
    assert sum(map(len, runs)) == len(records) == 2


@pytest.mark.parametrize("chunk", [1000, 1 << 20])
@pytest.mark.parametrize("name", ["CLX5_mbo.dbn", "ESM4_mbo_snapshot.dbn.zst"])
def test_whole_files(real_data, name, chunk):
    data = (real_data / name).read_bytes()
    plain = data
    if name.endswith(".zst"):
        plain = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    records = dbn.DBNDecoder().write_and_decode(plain)[1:]
    got = fed(data, list(range(chunk, len(data), chunk)))
    assert got == b"".join(bytes(record) for record in records)
    assert np.frombuffer(got, np.uint8)[1] == 160
