"""The control lines and records of the live protocol, byte by byte."""

from __future__ import annotations

import dataclasses
import hashlib

import databento_dbn as dbn
import numpy as np
import pytest

from mdtool.core.errors import PeerError
from mdtool.wire import live_records
from mdtool.wire.dbn import DbnDecoder
from mdtool.wire.dbn_records import DTYPES, RTYPE_DEFINITION
from mdtool.wire.live import (
    MAX_LINE_BYTES,
    MAX_SYMBOLS,
    Accepted,
    AnswerDecoder,
    Authentication,
    Challenge,
    ControlError,
    Greeting,
    Rejected,
    RequestDecoder,
    Start,
    Subscribe,
    Unsubscribe,
    authentication,
    encode_answer,
    encode_request,
)

KEY = "db-0123456789abcdefghijklmnopqrs"
CRAM = "c" * 32
DIGEST = hashlib.sha256(f"{CRAM}|{KEY}".encode()).hexdigest()
AUTH = f"auth={DIGEST}-opqrs|dataset=XNAS.ITCH"


def requests(text: str) -> list:
    """What a client sends behind its authentication."""
    decoder = RequestDecoder()
    decoder.feed(f"{AUTH}\n".encode())
    return decoder.feed(text.encode())


def reason(data: bytes, is_authenticated: bool = True) -> str:
    decoder = RequestDecoder()
    if is_authenticated:
        decoder.feed(f"{AUTH}\n".encode())
    with pytest.raises(ControlError) as raised:
        decoder.feed(data)
    with pytest.raises(ControlError):  # and nothing is decoded from then on
        decoder.feed(b"start_session\n")
    assert "\n" not in str(raised.value)
    return str(raised.value)


class TestAnswers:
    def test_lines_have_no_field_that_clients_do_not_expect(self):
        answers = [Greeting(), Challenge(CRAM), Accepted(7), Rejected("no such key")]
        assert [encode_answer(answer) for answer in answers] == [
            b"lsg_version=0.8.0\n",
            b"cram=" + CRAM.encode() + b"\n",
            b"success=1|session_id=7\n",
            b"success=0|error=no such key\n",
        ]

    def test_a_reason_stays_in_its_field(self):
        assert encode_answer(Rejected("a|b=c\nd\u00e9")) == b"success=0|error=a b c d?\n"

    def test_what_follows_the_last_answer_is_the_stream(self):
        decoder = AnswerDecoder()
        assert decoder.feed(b"success=1|session_id=7\nDBN\x03\n\n") == [Accepted(7)]
        assert decoder.rest == b"DBN\x03\n\n"

    @pytest.mark.parametrize("line", [b"hello=1\n", b"success=2\n", b"GET / HTTP/1.1\r\n"])
    def test_another_server(self, line):
        with pytest.raises(ControlError, match="is not"):
            AnswerDecoder().feed(line)


class TestAuthentication:
    def test_a_key_is_proved_without_being_sent(self):
        request = authentication(CRAM, KEY, "XNAS.ITCH")
        assert request == Authentication(DIGEST, "opqrs", "XNAS.ITCH")
        assert KEY.encode() not in encode_request(request)
        assert request.proves(CRAM, KEY)
        assert not request.proves(CRAM, KEY[:-1] + "t")
        assert not request.proves("d" * 32, KEY)
        assert not dataclasses.replace(request, bucket="opqrt").proves(CRAM, KEY)

    @pytest.mark.parametrize("bucket", ["a", "ab-cd", "a=b"])
    def test_a_key_of_any_length(self, bucket):
        digest = DIGEST.upper()
        [request] = RequestDecoder().feed(f"auth={digest}-{bucket}|dataset=X\n".encode())
        assert (request.digest, request.bucket) == (DIGEST, bucket)

    def test_fields_in_any_order_unknown_and_missing(self):
        line = (
            "client=Python 0.88 (x=y)|ts_out=1|details=anything|pretty_px=1|heartbeat_interval_s=7|"
            f"compression=zstd|slow_reader_behavior=warn|dataset=GLBX.MDP3|auth={DIGEST}-opqrs"
        )
        assert RequestDecoder().feed(f"{line}\r\n".encode()) == [
            Authentication(
                DIGEST,
                "opqrs",
                "GLBX.MDP3",
                compression="zstd",
                has_ts_out=True,
                heartbeat_interval_s=7,
                skips=False,
                client="Python 0.88 (x=y)",
                has_pretty_px=True,
            )
        ]
        assert RequestDecoder().feed(f"{AUTH}\n".encode()) == [
            Authentication(DIGEST, "opqrs", "XNAS.ITCH")
        ]

    def test_a_long_name_is_cut(self):
        [request] = RequestDecoder().feed(f"{AUTH}|client={'x' * 1_000}\n".encode())
        assert request.client == "x" * 256

    def test_drop_is_an_old_word_for_skip(self):
        [request] = RequestDecoder().feed(f"{AUTH}|slow_reader_behavior=drop\n".encode())
        assert request.skips

    @pytest.mark.parametrize(
        ("line", "why"),
        [
            ("dataset=XNAS.ITCH", "is not an authentication"),
            (f"auth={DIGEST}-opqrs", "names no dataset"),
            *(
                (f"auth={proof}|dataset=X", "expected 64 hexadecimal digits")
                for proof in (
                    "",
                    "1",
                    DIGEST,
                    f"{DIGEST}-",
                    f"{DIGEST}-abcdef",
                    f"{DIGEST[:-1]}-opqrs",
                    f"{DIGEST}0-opqrs",
                    f"{DIGEST[:-1]}x-opqrs",
                    f"{DIGEST}opqrs",
                )
            ),
            (f"{AUTH}|encoding=xml", "encoding=xml: expected dbn, csv, json"),
            (f"{AUTH}|compression=gzip", "compression=gzip: expected none, zstd"),
            (f"{AUTH}|ts_out=yes", "ts_out=yes: expected 0 or 1"),
            (f"{AUTH}|heartbeat_interval_s=4", "expected 5 to 1800"),
            (f"{AUTH}|heartbeat_interval_s=x", "expected a whole number"),
            (f"{AUTH}|slow_reader_behavior=hurry", "expected skip, warn, drop"),
            (f"{AUTH}|dataset=GLBX.MDP3", "the field dataset twice"),
            (f"auth={DIGEST}-opqrs|dataset={'X' * 17}", "expected at most 16 characters"),
            ("start_session=0", "is not an authentication"),
            ("GET / HTTP/1.1", "is not an authentication"),
        ],
    )
    def test_what_is_not_valid(self, line, why):
        assert why in reason(f"{line}\n".encode(), is_authenticated=False)


class TestSubscriptions:
    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            (  # as the Python client sends it
                "schema=mbo|stype_in=raw_symbol|symbols=A,B|start=5|snapshot=0|id=0|is_last=1",
                Subscribe("mbo", "raw_symbol", ("A", "B"), 5, id=0),
            ),
            (  # C++: what the user gave
                "schema=mbo|stype_in=parent|symbols=ES.FUT|start=2024-05-01T00:00:00.5Z",
                Subscribe("mbo", "parent", ("ES.FUT",), 1_714_521_600_500_000_000),
            ),
            (  # Go: no id, no is_last
                "schema=trades|stype_in=continuous|symbols=ES.c.0",
                Subscribe("trades", "continuous", ("ES.c.0",)),
            ),
            (
                "symbols=ALL_SYMBOLS|snapshot=1|schema=mbo|id=3|is_last=1",
                Subscribe("mbo", "raw_symbol", ("ALL_SYMBOLS",), has_snapshot=True, id=3),
            ),
            (
                "unsubscribe|schema=mbo|stype_in=raw_symbol|symbols=A|is_last=1",
                Unsubscribe("mbo", "raw_symbol", ("A",)),
            ),
            ("start_session", Start()),
            ("start_session=0", Start()),
            ("start_session=", Start()),
        ],
    )
    def test_what_clients_send(self, line, expected):
        assert requests(f"{line}\n") == [expected]

    def test_chunks_of_one_id_are_joined_and_others_may_come_between(self):
        symbols = tuple(f"S{number}" for number in range(3_950))
        long = Subscribe("trades", "raw_symbol", symbols, id=1)
        *chunks, last = encode_request(long).decode().splitlines(keepends=True)
        assert len(chunks) == 7
        short = Subscribe("mbo", "raw_symbol", ("A", "B"), id=2)
        assert requests("".join(chunks) + encode_request(short).decode() + last) == [short, long]

    def test_a_symbol_counts_once(self):
        [request] = requests("schema=mbo|symbols=B,A,,B \n")
        assert request.symbols == ("B", "A")

    @pytest.mark.parametrize(
        ("line", "why"),
        [
            ("schema=mbo|symbols=", "without a schema or symbols"),
            ("symbols=A", "without a schema or symbols"),
            ("schema=mbo|symbols=A|start=yesterday", "start='yesterday' is not a time"),
            (f"schema={'x' * 65}|symbols=A", "is too long"),
            ("schema=mbo|symbols=A|start=" + "9" * 30, "is not a time in nanoseconds"),
            *(
                (f"schema=mbo|symbols=A|{name}={'9' * 1_000}", f"{name}={'9' * 64}: is too long")
                for name in ("stype_in", "start")
            ),
            ("schema=mbo|symbols=A|id=x", "id=x: expected a whole number"),
            ("schema=mbo|symbols=A|snapshot=2", "snapshot=2: expected 0 or 1"),
            ("subscribe|now", "is not a control line"),
            ("ping=1", "is not a request of the live protocol"),
            (AUTH, "authenticated already"),
            (
                "schema=mbo|symbols=A|id=1|is_last=0\nschema=trades|symbols=A|id=1",
                "chunks of subscription 1 differ",
            ),
            ("schema=mbo|symbols=A|id=1|is_last=0\nstart_session", "before the last chunk"),
        ],
    )
    def test_what_is_not_valid(self, line, why):
        assert why in reason(f"{line}\n".encode())

    def test_requests_before_an_error_are_returned(self):
        decoder = RequestDecoder()
        assert len(decoder.feed(f"{AUTH}\nstart_session=0\nping=1\n".encode())) == 2
        assert decoder.error is not None
        with pytest.raises(PeerError, match="ping"):
            decoder.feed(b"")


class TestBounds:
    def test_lines_without_end(self):
        assert "more than 262,144 bytes" in reason(b"a" * (MAX_LINE_BYTES + 1))
        assert "more than 262,144 bytes" in reason(b"a" * (1 << 20) + b"\n")

    @pytest.mark.parametrize(
        "line", ["sch\u00e9ma=mbo\n".encode(), b"\xff\xfes\x00\n", b"a\x00=1\n"]
    )
    def test_other_encodings(self, line):
        assert "it is not ASCII text" in reason(line)

    def test_symbols_without_end(self):
        symbols = ",".join(f"{number:06}" for number in range(30_000))
        lines = [f"schema=mbo|symbols={symbols}|id={number}|is_last=0\n" for number in range(5)]
        assert f"more than {MAX_SYMBOLS:,} symbols" in reason("".join(lines).encode())


def decoded(*parts: bytes, version: int = 3, has_ts_out: bool = False) -> list:
    """Metadata and records, as the official decoder reads a session."""
    metadata = live_records.metadata("XNAS.ITCH", 5, has_ts_out=has_ts_out, version=version)
    decoder = dbn.DBNDecoder(upgrade_policy=dbn.VersionUpgradePolicy.AS_IS)
    return decoder.write_and_decode(metadata + b"".join(parts))


class TestRecords:
    @pytest.mark.parametrize("version", live_records.VERSIONS)
    @pytest.mark.parametrize("has_ts_out", [False, True])
    def test_metadata(self, version, has_ts_out):
        [metadata] = decoded(version=version, has_ts_out=has_ts_out)
        assert (metadata.version, metadata.dataset, metadata.start) == (version, "XNAS.ITCH", 5)
        assert metadata.schema is metadata.stype_in is metadata.end is metadata.limit is None
        assert str(metadata.stype_out) == "instrument_id"
        assert metadata.ts_out is has_ts_out
        assert not metadata.mappings
        assert [metadata.symbols, metadata.partial, metadata.not_found] == [[], [], []]

    @pytest.mark.parametrize("version", live_records.VERSIONS)
    def test_mappings(self, version):
        record = live_records.encode_mapping(7, "continuous", "ES.c.0", "ESM4", 9)
        assert len(record) == 176
        _, read = decoded(record, version=version)
        assert (read.instrument_id, read.ts_event, read.publisher_id) == (7, 9, 0)
        assert (read.stype_in_symbol, read.stype_out_symbol) == ("ES.c.0", "ESM4")
        assert (str(read.stype_in), str(read.stype_out)) == ("continuous", "raw_symbol")
        assert read.start_ts == read.end_ts == dbn.UNDEF_TIMESTAMP

    @pytest.mark.parametrize(
        ("notice", "code", "text"),
        [
            (live_records.heartbeat(), 0, "Heartbeat"),
            (live_records.subscribed(3, "mbo"), 1, "Subscription request 3 for mbo data succeeded"),
            (
                live_records.slow_reading("mbp-1"),
                2,
                "Warning: slow reading, not keeping pace with mbp-1 data",
            ),
            (live_records.replayed("trades"), 3, "Finished trades replay"),
            (live_records.interval_ended("ohlcv-1s"), 4, "End of interval for ohlcv-1s"),
            (live_records.unsubscribed("mbo"), 5, "Unsubscribed from mbo data"),
        ],
    )
    def test_system_records(self, notice, code, text):
        record = live_records.encode_notice(notice, 9)
        assert len(record) == 320
        _, read = decoded(record)
        assert (int(read.code), read.msg, read.ts_event) == (code, text, 9)
        assert read.is_heartbeat() == (code == 0)

    @pytest.mark.parametrize(
        ("failure", "code", "is_fatal"),
        [
            (live_records.unresolved("XYZ"), 4, False),
            (live_records.not_subscribed("XYZ", "mbo"), 5, False),
            (live_records.invalid("w\u00e9 " * 1_000), 5, True),
            (live_records.aged_out(), 8, True),
            (live_records.failed("input"), 6, True),
            (live_records.skipped(12), 7, False),
        ],
    )
    def test_error_records(self, failure, code, is_fatal):
        record = live_records.encode_failure(failure, 9)
        assert len(record) == 320
        _, read = decoded(record)
        expected = failure.text.replace("\u00e9", "?")[: live_records.MAX_ERROR_CHARS]
        assert (int(read.code), read.err, read.is_last) == (code, expected, 1)
        assert failure.is_fatal == is_fatal


class TestVersion2:
    def test_statistics(self):
        made = [
            dbn.StatMsg(
                publisher_id=1,
                instrument_id=7,
                ts_event=1,
                ts_recv=2,
                ts_ref=3,
                price=4,
                quantity=quantity,
                stat_type=dbn.StatType.OPENING_PRICE,
            )
            for quantity in (5, 2**40)
        ]
        records = np.frombuffer(b"".join(map(bytes, made)), DTYPES[24])
        older = live_records.in_version(records, 2)
        _, *read = decoded(older.tobytes(), version=2)
        assert [type(record) for record in read] == [dbn.StatMsgV1] * 2
        assert [record.quantity for record in read] == [5, 2**31 - 1]
        assert [(each.ts_recv, each.ts_ref, each.price) for each in read] == [(2, 3, 4)] * 2

    def test_definitions_are_read_as_they_were(self):
        records = np.zeros(2, DTYPES[RTYPE_DEFINITION])
        records["rtype"], records["length"] = RTYPE_DEFINITION, records.dtype.itemsize // 4
        records["raw_symbol"], records["asset"] = b"ESM4", b"ES"
        records["strike_price"], records["raw_instrument_id"] = 5, [7, 2**40]
        records["instrument_class"] = b"F"
        older = live_records.in_version(records, 2)
        metadata = live_records.metadata("GLBX.MDP3", 5, has_ts_out=False, version=2)
        [read] = DbnDecoder().feed(metadata + older.tobytes())
        for name in ("raw_symbol", "asset", "strike_price", "instrument_class"):
            assert (read[name] == records[name]).all(), name
        assert read["raw_instrument_id"].tolist() == [7, 0]

    @pytest.mark.parametrize("version", live_records.VERSIONS)
    def test_the_rest_is_the_same(self, version):
        records = np.zeros(2, DTYPES[160])
        records["rtype"] = 160
        assert live_records.in_version(records, version) is records
