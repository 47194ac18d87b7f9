"""Compressed streams of every kind, however they are cut, joined, damaged or blown up."""

import bz2
import gzip
import lzma
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mdtool.core.errors import CorruptStreamError
from mdtool.wire.compression import MOST_BYTES, Unwrapper
from mdtool.wire.dbn import DbnDecoder, encode_records
from tests.reference import dbn_streams as streams

BODY = bytes(encode_records(streams.mbo(300)))
PLAIN = streams.header() + BODY
CODECS = {
    "zstd": zstandard.compress,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}
each_codec = pytest.mark.parametrize("name", CODECS)


def fed(data: bytes, *cuts: int) -> bytes:
    decoder = DbnDecoder("f")
    edges = [0, *sorted(cuts), len(data)]
    runs = [run for begin, end in pairwise(edges) for run in decoder.feed(data[begin:end])]
    decoder.finish()
    return b"".join(run.tobytes() for run in runs)


@each_codec
@given(data=st.data())
def test_a_stream_may_be_cut_anywhere(name, data):
    compressed = CODECS[name](PLAIN)
    assert (
        fed(compressed, *data.draw(st.lists(st.integers(0, len(compressed)), max_size=9))) == BODY
    )


@each_codec
@pytest.mark.parametrize("next_name", CODECS)
def test_frames_follow_each_other_however_they_are_compressed(name, next_name):
    joined = CODECS[name](PLAIN[:700]) + CODECS[next_name](PLAIN[700:])
    assert fed(joined) == fed(joined, *range(0, len(joined), 7)) == BODY


@each_codec
def test_files_follow_each_other_compressed_or_not(name):
    compress = CODECS[name]
    assert fed(compress(PLAIN) + compress(PLAIN)) == 2 * BODY
    assert fed(compress(PLAIN) + PLAIN) == 2 * BODY


@pytest.mark.parametrize("name", ["gzip", "xz"])
def test_padding_between_and_after_frames_is_skipped(name):
    compressed = CODECS[name](PLAIN) + bytes(512)
    assert fed(compressed + compressed) == 2 * BODY


@each_codec
def test_a_compressed_file_after_a_plain_one_is_named(name):
    decoder = DbnDecoder("f.dbn")
    (run,) = decoder.feed(PLAIN + CODECS[name](PLAIN))
    assert len(run) == 300
    with pytest.raises(CorruptStreamError, match=f"another file, compressed with {name}, begins"):
        decoder.finish()


@each_codec
class TestDamage:
    def test_a_cut_gives_what_came_before(self, name):
        decoder = DbnDecoder("f")
        decoder.feed(CODECS[name](PLAIN)[:-9])
        with pytest.raises(CorruptStreamError, match="ends inside"):
            decoder.finish()

    def test_garbage_after_a_frame(self, name):
        decoder = DbnDecoder("f")
        (run,) = decoder.feed(CODECS[name](PLAIN) + b"garbage!")
        assert len(run) == 300
        with pytest.raises(CorruptStreamError, match=f"damaged {name}"):
            decoder.finish()

    def test_garbage_inside(self, name):
        compressed = bytearray(CODECS[name](PLAIN))
        compressed[len(compressed) // 2 :] = b"\xff" * (len(compressed) - len(compressed) // 2)
        with pytest.raises(CorruptStreamError, match=f"damaged {name}|contains garbage"):
            fed(bytes(compressed))


BOMBS = {
    "zstd": lambda: zstandard.compress(bytes(1 << 30)),
    "gzip": lambda: gzip.compress(bytes(1 << 26), 1),
    "xz": lambda: lzma.compress(bytes(1 << 26), preset=0),
    "bzip2": lambda: bz2.compress(bytes(1 << 26), 1),
}


@each_codec
def test_what_stands_for_gigabytes_is_unwrapped_in_parts(name):
    bomb = BOMBS[name]()
    unwrapper = Unwrapper()
    tracemalloc.start()
    sizes = [len(unwrapper.feed(bomb))]
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sizes[0] < MOST_BYTES + (1 << 27) + (1 << 20)
    assert peak_bytes < 3 * sizes[0] + 2 * len(bomb) + (1 << 22)
    while unwrapper.has_more:
        sizes.append(len(unwrapper.feed(b"")))
    unwrapper.finish()
    assert len(sizes) > 1
    assert sum(sizes) == (1 << 30 if name == "zstd" else 1 << 26)


@each_codec
def test_a_bomb_that_is_not_dbn_is_one_line(name):
    with pytest.raises(CorruptStreamError, match="contains garbage"):
        fed(CODECS[name](PLAIN + bytes(1 << 26)))


def with_window(log: int) -> bytes:
    """PLAIN in a zstd frame whose header announces a window of so many bits."""
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    frame = bytearray(compressor.compress(PLAIN) + compressor.flush())
    frame[5] = (log - 10) << 3
    return bytes(frame)


@pytest.mark.parametrize("log", [27, 28, 31])
def test_windows_of_zstd(log):
    assert fed(with_window(log)) == BODY


def test_a_window_beyond_the_limit_is_named():
    with pytest.raises(CorruptStreamError, match=r"window of 4,294,967,296 bytes.*2\^31"):
        fed(with_window(32))


def test_the_records_of_a_large_stream_come_in_parts():
    records = np.tile(streams.mbo(1), 1 << 20)
    decoder = DbnDecoder("f")
    data = zstandard.compress(streams.header() + bytes(encode_records(records)))
    first = decoder.decode(data)
    assert 0 < sum(len(run.records) for run in first) < len(records)
    while decoder.has_more:
        first += decoder.decode(b"")
    decoder.finish()
    assert [run.before for run in first] == np.cumsum(
        [0, *(len(run.records) for run in first[:-1])]
    ).tolist()
    assert decoder.records == len(records)
