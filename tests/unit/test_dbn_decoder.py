import bz2
import gzip

import databento_dbn as dbn
import numpy as np
import pytest
import zstandard

from mdtool.core.errors import CorruptStreamError, InputError
from mdtool.wire.dbn import DbnDecoder, encode_metadata, encode_records
from tests.reference import dbn_streams as streams

HEADER = streams.header()
RECORD_BYTES = 56


def decoded(data: bytes) -> tuple[DbnDecoder, list[np.ndarray]]:
    decoder = DbnDecoder("f.dbn")
    runs = decoder.feed(data)
    decoder.finish()
    return decoder, runs


def test_records_come_out_as_they_went_in():
    records = streams.mbo(100)
    decoder, runs = decoded(HEADER + encode_records(records))
    assert len(runs) == 1
    assert np.array_equal(runs[0], records)
    assert decoder.metadata.dataset == "TEST"
    assert decoder.records == 100
    assert decoder.offset == len(HEADER) + 100 * RECORD_BYTES


def test_the_arrays_cannot_be_written_to():
    _, runs = decoded(HEADER + encode_records(streams.mbo(1)))
    with pytest.raises(ValueError, match="read-only"):
        runs[0]["size"] = 0


def test_a_buffer_that_is_used_again_does_not_change_what_was_decoded():
    decoder = DbnDecoder()
    buffer = bytearray(HEADER + encode_records(streams.mbo(3)))
    runs = decoder.feed(buffer)
    buffer[:] = bytes(len(buffer))
    assert np.array_equal(runs[0], streams.mbo(3))


def test_records_of_several_rtypes_come_in_runs_in_their_order():
    parts = [streams.mbo(3), streams.bars(200, 32), streams.bars(1, 33), streams.mbo(70, 3)]
    _, runs = decoded(streams.header(None) + b"".join(map(encode_records, parts)))
    assert [len(run) for run in runs] == [3, 200, 1, 70]
    for run, part in zip(runs, parts, strict=True):
        assert np.array_equal(run, part)


def test_a_header_without_records_is_a_whole_stream():
    decoder, runs = decoded(HEADER)
    assert runs == []
    assert decoder.metadata is not None


def test_the_metadata_is_there_as_soon_as_its_last_byte_is():
    decoder = DbnDecoder()
    for byte in HEADER[:-1]:
        assert decoder.feed(bytes([byte])) == []
        assert decoder.metadata is None
    decoder.feed(HEADER[-1:])
    assert decoder.metadata is not None


def test_ts_out_is_apart_from_records():
    plain = streams.mbo(5)
    metadata = dbn.Metadata(
        dataset="TEST",
        start=streams.START,
        stype_in=dbn.SType.RAW_SYMBOL,
        stype_out=dbn.SType.INSTRUMENT_ID,
        schema=dbn.Schema.MBO,
        ts_out=True,
    )
    rows = np.zeros((5, RECORD_BYTES + 8), np.uint8)
    rows[:, :RECORD_BYTES] = plain.view(np.uint8).reshape(5, -1)
    rows[:, 0] = (RECORD_BYTES + 8) // 4
    rows[:, RECORD_BYTES:].view("<u8")[:, 0] = range(7, 12)
    decoder = DbnDecoder()
    [run] = decoder.decode(encode_metadata(metadata) + rows.tobytes())
    assert np.array_equal(run.records, plain)
    assert run.ts_out.tolist() == [*range(7, 12)]
    assert decoder.metadata.ts_out is True


def test_what_older_streams_say_of_themselves_is_upgraded():
    older = [
        dbn.SymbolMappingMsgV1(
            publisher_id=1,
            instrument_id=7,
            ts_event=5,
            stype_in_symbol="ES.c.0",
            stype_out_symbol="ESH1",
            start_ts=1,
            end_ts=9,
        ),
        dbn.SystemMsgV1(ts_event=6, msg="Heartbeat"),
        dbn.ErrorMsgV1(ts_event=7, err="no"),
        dbn.StatMsgV1(
            publisher_id=1,
            instrument_id=7,
            ts_event=8,
            ts_recv=9,
            ts_ref=10,
            price=11,
            quantity=-12,
            stat_type=dbn.StatType.OPEN_INTEREST,
        ),
    ]
    sizes = [80, 80, 80, 64]
    body = b"".join(
        bytes(record)[:size] for record, size in zip(older, sizes, strict=True)
    ) + encode_records(streams.mbo(2))
    _, runs = decoded(HEADER[:3] + b"\x01" + v1_metadata() + body)
    mapping, system, error, stat, orders = runs
    assert [run.dtype.itemsize for run in runs] == [176, 320, 320, 80, 56]
    assert mapping["stype_out_symbol"].tolist() == [b"ESH1"]
    assert system["msg"].tolist() == [b"Heartbeat"]
    assert error["err"].tolist() == [b"no"]
    assert stat["quantity"].tolist() == [-12]
    assert np.array_equal(orders, streams.mbo(2))


def v1_metadata() -> bytes:
    """Everything of a version 1 header after its version."""
    metadata = dbn.Metadata(
        dataset="TEST",
        start=streams.START,
        stype_in=dbn.SType.RAW_SYMBOL,
        stype_out=dbn.SType.INSTRUMENT_ID,
        schema=None,
        version=1,
    )
    return metadata.encode()[4:]


class TestZstd:
    records = streams.mbo(1000)
    body = bytes(encode_records(records))
    skippable = b"\x5a\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"

    @pytest.mark.parametrize(
        "frames",
        [
            [HEADER + body],
            [HEADER, body],
            [HEADER[:5], HEADER[5:] + body[:77], body[77:]],
            [HEADER + body, b""],
        ],
        ids=["one frame", "a frame for the metadata", "cut anywhere", "an empty frame"],
    )
    def test_a_stream_may_have_any_frames(self, frames):
        decoder, runs = decoded(b"".join(map(zstandard.compress, frames)))
        assert np.array_equal(np.concatenate(runs), self.records)
        assert decoder.is_compressed

    def test_skippable_frames_may_stand_anywhere(self):
        data = self.skippable + zstandard.compress(HEADER) + self.skippable
        data += zstandard.compress(self.body) + self.skippable
        assert np.array_equal(decoded(data)[1][0], self.records)

    def test_a_frame_that_is_cut_gives_what_came_and_an_error(self):
        whole = zstandard.compress(HEADER + self.body)
        decoder = DbnDecoder("f.dbn.zst")
        decoder.feed(whole[:-4])
        with pytest.raises(CorruptStreamError, match=r"f\.dbn\.zst: ends inside") as caught:
            decoder.finish()
        assert f"byte {caught.value.offset} of the decompressed stream" in str(caught.value)

    def test_garbage_after_a_frame_is_an_error(self):
        decoder = DbnDecoder("f.dbn.zst")
        with pytest.raises(CorruptStreamError, match="damaged zstd"):
            decoder.feed(zstandard.compress(HEADER) + b"garbage!")


class TestBadStreams:
    @pytest.mark.parametrize("kept", [1, 2, 55])
    def test_a_stream_cut_in_a_record(self, kept):
        decoder = DbnDecoder("f.dbn")
        runs = decoder.feed((HEADER + encode_records(streams.mbo(4)))[: -RECORD_BYTES + kept])
        assert np.array_equal(runs[0], streams.mbo(3))
        with pytest.raises(CorruptStreamError) as caught:
            decoder.finish()
        assert caught.value.record == 3
        assert caught.value.offset == len(HEADER) + 3 * RECORD_BYTES
        assert str(caught.value) == (
            "f.dbn: ends inside a record that begins"
            f" at byte {len(HEADER) + 3 * RECORD_BYTES}, after 3 whole records"
        )

    @pytest.mark.parametrize("kept", [4, 7, 8, 100])
    def test_a_stream_cut_in_its_metadata(self, kept):
        decoder = DbnDecoder("f.dbn")
        decoder.feed(HEADER[:kept])
        with pytest.raises(CorruptStreamError, match="ends inside its metadata"):
            decoder.finish()

    def test_nothing_at_all(self):
        with pytest.raises(InputError, match=r"^f\.dbn: is empty$"):
            DbnDecoder("f.dbn").finish()

    def test_what_is_compressed_twice(self):
        data = gzip.compress(zstandard.compress(HEADER))
        with pytest.raises(InputError, match="compressed twice; decompress it to zstd"):
            DbnDecoder("f.dbn").feed(data)

    @pytest.mark.parametrize("compress", [zstandard.compress, gzip.compress, bz2.compress])
    def test_nothing_that_is_compressed(self, compress):
        decoder = DbnDecoder("f.dbn")
        decoder.feed(compress(b""))
        with pytest.raises(InputError, match=r"^f\.dbn: is empty once it is decompressed$"):
            decoder.finish()

    @pytest.mark.parametrize("compress", [zstandard.compress, gzip.compress, bz2.compress])
    def test_a_compressed_stream_that_ends_before_its_first_byte(self, compress):
        decoder = DbnDecoder("f.dbn")
        decoder.feed(compress(bytes(1000))[:8])
        with pytest.raises(CorruptStreamError, match=r"^f\.dbn: ends inside a .* at byte 0 of "):
            decoder.finish()

    @pytest.mark.parametrize("text", [b"D", b"DB"])
    def test_too_little_to_tell(self, text):
        decoder = DbnDecoder("f.dbn")
        decoder.feed(text)
        with pytest.raises(InputError, match="is not a DBN stream"):
            decoder.finish()

    @pytest.mark.parametrize("text", [b"ts_recv,ts_event\n", b"PAR1....", bytes(100)])
    def test_another_format(self, text):
        with pytest.raises(InputError, match=r"f\.dbn: is not a DBN stream \(begins with b'"):
            DbnDecoder("f.dbn").feed(text)

    def test_a_version_of_the_future(self):
        with pytest.raises(InputError, match="is DBN version 4; 1 to 3 are known"):
            DbnDecoder("f.dbn").feed(HEADER[:3] + b"\x04" + HEADER[4:])

    def test_metadata_that_is_none(self):
        with pytest.raises(CorruptStreamError, match="damaged metadata"):
            DbnDecoder("f.dbn").feed(HEADER[:8] + b"\xff" * (len(HEADER) - 8))

    @pytest.mark.parametrize("garbage", [b"\x0e\x4d" * 40, bytes(80), b"\x0e\xa1" + bytes(60)])
    def test_garbage_between_records_comes_after_all_before_it(self, garbage):
        records = encode_records(streams.mbo(3))
        decoder = DbnDecoder("f.dbn")
        runs = decoder.feed(HEADER + records + garbage + records)
        assert np.array_equal(runs[0], streams.mbo(3))
        with pytest.raises(CorruptStreamError, match="contains garbage") as caught:
            decoder.feed(records)
        assert caught.value.offset == len(HEADER) + 3 * RECORD_BYTES
        with pytest.raises(CorruptStreamError):
            decoder.finish()

    def test_garbage_at_the_start_of_a_feed_is_told_at_once(self):
        decoder = DbnDecoder("f.dbn")
        decoder.feed(HEADER)
        with pytest.raises(CorruptStreamError, match="contains garbage"):
            decoder.feed(bytes(80))


class TestAppendedFiles:
    ORDERS = HEADER + encode_records(streams.mbo(3))

    @pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
    def test_they_are_read_on_where_headers_agree(self, chunk):
        data = bytes(self.ORDERS + self.ORDERS + HEADER)
        decoder = DbnDecoder("f.dbn")
        runs = [
            run
            for begin in range(0, len(data), chunk)
            for run in decoder.decode(data[begin : begin + chunk])
        ]
        decoder.finish()
        wanted = np.concatenate([streams.mbo(3)] * 2)
        assert np.array_equal(np.concatenate([run.records for run in runs]), wanted)
        ends = [run.offset + run.record_bytes * len(run.records) for run in runs]
        assert ends[-1] == len(data) - len(HEADER)
        assert runs[-1].before + len(runs[-1].records) == decoder.records == 6

    @pytest.mark.parametrize("version", [1, 2, 3])
    def test_each_has_its_version(self, version):
        message = {
            1: lambda: bytes(dbn.SystemMsgV1(ts_event=6, msg="Heartbeat"))[:80],
            2: lambda: bytes(dbn.SystemMsg(ts_event=6, msg="Heartbeat")),
            3: lambda: bytes(dbn.SystemMsg(ts_event=6, msg="Heartbeat")),
        }[version]()
        older = HEADER if version == 3 else HEADER[:3] + bytes([version]) + of_version(version)
        _, runs = decoded(self.ORDERS + older + message + self.ORDERS)
        assert [len(run) for run in runs] == [3, 1, 3]
        assert runs[1]["msg"].tolist() == [b"Heartbeat"]

    @pytest.mark.parametrize(
        ("header", "told"),
        [
            (streams.header("trades"), "another file (TEST trades raw_symbol instrument_id, not"),
            (HEADER[:3] + b"\x09" + HEADER[4:], "another file, of DBN version 9, begins"),
            (HEADER[:8] + b"\xff" * (len(HEADER) - 8), "another file with damaged metadata begins"),
        ],
    )
    def test_where_they_do_not_the_next_file_is_named(self, header, told):
        decoder = DbnDecoder("f.dbn")
        (run,) = decoder.feed(self.ORDERS + header + encode_records(streams.mbo(1)))
        assert len(run) == 3
        with pytest.raises(CorruptStreamError) as caught:
            decoder.finish()
        assert told in str(caught.value)
        where = f"at byte {len(self.ORDERS)}, after 3 whole records; give each file by itself"
        assert str(caught.value).endswith(where)

    def test_a_header_that_is_cut(self):
        decoder = DbnDecoder("f.dbn")
        decoder.feed(self.ORDERS + HEADER[:-1])
        with pytest.raises(CorruptStreamError, match="ends inside the header of another file"):
            decoder.finish()


def of_version(version: int) -> bytes:
    """Everything of a header like HEADER after its version."""
    metadata = dbn.Metadata(
        dataset="TEST",
        start=streams.START,
        stype_in=dbn.SType.RAW_SYMBOL,
        stype_out=dbn.SType.INSTRUMENT_ID,
        schema=dbn.Schema.MBO,
        version=version,
    )
    return metadata.encode()[4:]


def unknown(rtype: int, n_bytes: int) -> bytes:
    """A record of an rtype that does not exist."""
    return bytes([n_bytes // 4, rtype]) + b"\x07" * (n_bytes - 2)


class TestUnknownRecords:
    ORDERS = bytes(encode_records(streams.mbo(2)))

    @pytest.mark.parametrize("chunk", [1, 9, 1 << 20])
    def test_they_are_skipped_and_counted(self, chunk):
        data = HEADER + unknown(200, 16) + self.ORDERS + unknown(99, 48) + unknown(200, 1020)
        data += self.ORDERS + HEADER + unknown(200, 24)
        decoder = DbnDecoder("f.dbn")
        runs = [
            run
            for begin in range(0, len(data), chunk)
            for run in decoder.decode(data[begin : begin + chunk])
        ]
        decoder.finish()
        assert b"".join(run.records.tobytes() for run in runs) == 2 * self.ORDERS
        assert decoder.unknown == {200: 3, 99: 1}
        assert decoder.offset == len(data)

    def test_a_stream_may_have_nothing_else(self):
        many = 3_000
        decoder, runs = decoded(HEADER + many * unknown(200, 64))
        assert (runs, decoder.unknown) == ([], {200: many})

    def test_one_that_is_cut(self):
        decoder = DbnDecoder("f.dbn")
        decoder.feed(HEADER + self.ORDERS + unknown(200, 64)[:-1])
        with pytest.raises(CorruptStreamError, match="ends inside a record") as caught:
            decoder.finish()
        assert caught.value.record == 2

    @pytest.mark.parametrize("rubbish", [bytes(16), b"\x0e\x00" + bytes(54), b"\x01\xc8" * 40])
    def test_what_garbage_follows_is_garbage(self, rubbish):
        decoder = DbnDecoder("f.dbn")
        with pytest.raises(CorruptStreamError, match=r"contains garbage \(rtype 200, 64 bytes\)"):
            decoder.feed(HEADER + unknown(200, 64) + rubbish + self.ORDERS)
