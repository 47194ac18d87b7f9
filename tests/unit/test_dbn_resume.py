"""A file entered at a place where its source once stood goes on as it did there."""

import databento_dbn as dbn
import numpy as np
import pytest
import zstandard

from mdtool.adapters.dbn_files import open_source
from mdtool.adapters.dbn_source import FIRST_CHUNK_BYTES, Position
from mdtool.core.errors import CorruptStreamError
from mdtool.wire.dbn import encode_records
from tests.reference import dbn_streams as streams
from tests.support.instruments import bare

N = 40_000


@pytest.fixture(params=["plain", "zstd", "frames"])
def path(request, tmp_path):
    data = streams.header() + bytes(encode_records(streams.mbo(N)))
    file = tmp_path / "f"
    if request.param == "zstd":
        data = zstandard.compress(data)
    elif request.param == "frames":
        data = zstandard.compress(data[:100_000]) + zstandard.compress(data[100_000:])
    file.write_bytes(data)
    return str(file)


def places(path) -> list[tuple[Position, int]]:
    """Every place between two arrays, with how many records came before."""
    with open_source(path) as source:
        found = [(source.position, 0)]
        for records in source:
            found.append((source.position, found[-1][1] + len(records)))
    return found


def test_from_every_place_the_rest_comes(path):
    for position, n_before in places(path):
        with open_source(path) as source:
            source.resume(position)
            rest = [*bare(source)]
            assert source.bytes_read == source.size_bytes
        records = np.concatenate(rest) if rest else streams.mbo(0)
        assert np.array_equal(records, streams.mbo(N - n_before, n_before))


def test_a_place_within_an_array(path):
    with open_source(path) as source:
        first = next(iter(source))
        position = source.position_before(7)
    assert position.records == len(first) - 7
    with open_source(path) as source:
        source.resume(position)
        assert next(iter(source)).records["sequence"][0] == len(first) - 7


def test_a_plain_file_is_not_read_before_that_place(tmp_path):
    path = tmp_path / "f.dbn"
    whole = streams.header() + bytes(encode_records(streams.mbo(N)))
    path.write_bytes(whole)
    last, _ = places(str(path))[-2]
    # The same, but garbage between what is read with the header and the place.
    garbage = b"\xff" * (last.offset - FIRST_CHUNK_BYTES)
    path.write_bytes(whole[:FIRST_CHUNK_BYTES] + garbage + whole[last.offset :])
    with open_source(str(path)) as source:
        source.resume(last)
        rest = np.concatenate([*bare(source)])
    assert np.array_equal(rest, streams.mbo(N - last.records, last.records))


def test_a_cut_is_told_of_as_from_the_beginning(tmp_path):
    path = tmp_path / "f.dbn"
    whole = streams.header() + bytes(encode_records(streams.mbo(N)))
    path.write_bytes(whole[:-20])
    place, _ = places_until_the_cut(str(path))
    with open_source(str(path)) as source:
        source.resume(place)
        with pytest.raises(CorruptStreamError) as error:
            list(source)
    assert (error.value.offset, error.value.record) == (len(whole) - 56, N - 1)


def places_until_the_cut(path):
    with open_source(path) as source:
        arrays = iter(source)
        count = len(next(arrays))
        return source.position, count


def test_places_count_the_bytes_that_older_versions_take(tmp_path):
    """Symbol mappings of v1 are smaller than what comes out of them, and ts_out adds 8 bytes."""
    mapping = dbn.SymbolMappingMsgV1(
        publisher_id=1,
        instrument_id=1,
        ts_event=streams.START,
        stype_in_symbol="OLD",
        stype_out_symbol="1",
        start_ts=0,
        end_ts=0,
    )
    header = bytearray(dbn_v1_header())
    orders = bytes(encode_records(streams.mbo(5)))
    path = tmp_path / "f.dbn"
    path.write_bytes(bytes(header) + bytes(mapping) + orders)
    with open_source(str(path)) as source:
        arrays = iter(source)
        next(arrays)
        position = source.position
    assert position == (len(header) + len(bytes(mapping)), 1)
    with open_source(str(path)) as source:
        source.resume(position)
        assert np.array_equal(np.concatenate([*bare(source)]), streams.mbo(5))


def dbn_v1_header() -> bytes:
    metadata = dbn.Metadata(
        dataset="TEST",
        start=streams.START,
        stype_in=dbn.SType("raw_symbol"),
        stype_out=dbn.SType("instrument_id"),
        schema=None,
        symbols=[],
        mappings=[],
        version=1,
    )
    return metadata.encode()
