"""What one connection's decoder takes, refuses and breaks off at."""

from __future__ import annotations

import math
import struct

import pytest

from mdtool.core.errors import PeerError
from mdtool.core.trades import PROBE, Frames, Reason
from mdtool.wire._pb import tick_pb2
from mdtool.wire.frames import (
    END_FRAME,
    PROBE_FRAME,
    encode_auth,
    encode_committed,
    encode_frame,
    encode_hello,
    encode_lot,
    encode_resume,
)
from mdtool.wire.symbol_index import SymbolIndex
from mdtool.wire.tick_decoder import FrameError, TickDecoder, decode_messages

NOW_NS = 1_735_201_234_567_000_000
SENT_NS = NOW_NS - 1_000_000


def tick(**changes) -> tick_pb2.Tick:
    fields = {"symbol": "AAPL", "price": 190.125, "volume": 300, "exchange_timestamp": SENT_NS}
    return tick_pb2.Tick(**(fields | changes))


def frame(**changes) -> bytes:
    return encode_frame(tick(**changes).SerializeToString())


def labels(decoded) -> list[str]:
    return [Reason(reason).label for reason in decoded.frames.refused_reason]


@pytest.fixture
def index() -> SymbolIndex:
    return SymbolIndex()


@pytest.fixture
def decoder(index) -> TickDecoder:
    return TickDecoder(index)


def test_a_tick_becomes_a_row_of_integers(decoder, index):
    frames = decoder.feed(frame(symbol=" aapl "), NOW_NS).frames
    assert index.symbols[frames.trades.symbol[0]] == "AAPL"
    assert frames.trades.price.tolist() == [190_125_000_000]
    assert frames.trades.size.tolist() == [300]
    assert frames.trades.ts_event.tolist() == [SENT_NS]
    assert frames.trades.ts_recv.tolist() == [NOW_NS]
    assert frames.offset.tolist() == [0]
    assert frames.count == 1


@pytest.mark.parametrize(
    ("changes", "label", "detail"),
    [
        ({"price": math.nan}, "price", "price nan is not above 0 and within int64 at 1e-9"),
        ({"price": math.inf}, "price", "price inf is not above 0 and within int64 at 1e-9"),
        ({"price": 0.0}, "price", "price 0.0 is not above 0 and within int64 at 1e-9"),
        ({"price": -1.0}, "price", "price -1.0 is not above 0 and within int64 at 1e-9"),
        ({"price": 1e300}, "price", "price 1e+300 is not above 0 and within int64 at 1e-9"),
        ({"volume": 0}, "volume", "volume 0 is not above 0"),
        ({"volume": -5}, "volume", "volume -5 is not above 0"),
        ({"symbol": ""}, "symbol", "symbol is empty"),
        ({"symbol": " \t"}, "symbol", "symbol is empty"),
        ({"symbol": "A" * 71}, "symbol", f"symbol '{'A' * 24}'... has 71 characters, over 70"),
        ({"symbol": "ÄAPL"}, "symbol", "symbol 'ÄAPL' is not printable ASCII"),
        ({"symbol": "A\x00B"}, "symbol", "symbol 'A\\x00B' is not printable ASCII"),
        ({"symbol": "\xa0AAPL"}, "symbol", "symbol '\\xa0AAPL' is not printable ASCII"),
        (
            {"exchange_timestamp": 1_735_201_234},
            "timestamp",
            "timestamp 1735201234 is in s, not in ns",
        ),
        (
            {"exchange_timestamp": 1_735_201_234_567},
            "timestamp",
            "timestamp 1735201234567 is in ms, not in ns",
        ),
        (
            {"exchange_timestamp": 1_735_201_234_567_000},
            "timestamp",
            "timestamp 1735201234567000 is in us, not in ns",
        ),
        ({"exchange_timestamp": 0}, "timestamp", "timestamp 0 is not above 0"),
    ],
)
def test_a_wrong_tick_is_refused_with_its_reason_and_the_stream_continues(
    decoder, changes, label, detail
):
    decoded = decoder.feed(frame(**changes) + frame(), NOW_NS)
    assert labels(decoded) == [label]
    assert decoded.details == [detail]
    assert decoded.frames.refused_offset.tolist() == [0]
    assert decoded.frames.offset.tolist() == [1]


def test_the_longest_symbol_is_taken(decoder, index):
    decoder.feed(frame(symbol="A" * 70), NOW_NS)
    assert list(index.symbols) == ["A" * 70]


def test_random_bytes_in_a_frame_are_malformed(decoder):
    decoded = decoder.feed(encode_frame(b"\xff\x00garbage") + frame(), NOW_NS)
    assert labels(decoded) == ["malformed"]
    assert decoded.details == ["payload of 9 bytes is not a Tick"]
    assert len(decoded.frames.trades) == 1


def test_a_tick_with_a_group_is_read_by_protobuf(decoder):
    group = b"\x33\x08\x01\x34"
    sound = encode_frame(group + tick(symbol="NEW").SerializeToString())
    wrong = encode_frame(tick(volume=0).SerializeToString() + group)
    decoded = decoder.feed(sound + wrong + encode_frame(b"\x33") + encode_frame(group), NOW_NS)
    assert decoded.frames.offset.tolist() == [0]
    assert labels(decoded) == ["volume", "malformed", "symbol"]
    assert decoded.details[0] == "volume 0 is not above 0"


def test_only_a_few_refusals_are_put_into_words(decoder):
    decoded = decoder.feed(frame(volume=0) * 100, NOW_NS)
    assert len(decoded.frames.refused_offset) == 100
    assert len(decoded.details) == 3


def test_half_a_frame_waits_for_the_rest(decoder):
    data = frame()
    assert decoder.feed(data[:20], NOW_NS).frames.count == 0
    assert decoder.pending_bytes == 20
    assert len(decoder.feed(data[20:], NOW_NS).frames.trades) == 1
    assert decoder.pending_bytes == 0


@pytest.mark.parametrize("size", [1, 3, 7, 1_000])
@pytest.mark.parametrize("opening", [b"", encode_hello("s")])
def test_an_end_wherever_chunks_are_cut(decoder, size, opening):
    data = opening + frame() * 3 + PROBE_FRAME + END_FRAME
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    *before, last = [decoder.feed(chunk, NOW_NS) for chunk in chunks]
    assert [each.has_ended for each in before] == [False] * len(before)
    assert last.has_ended
    assert sum(each.frames.count for each in [*before, last]) == 4
    assert decoder.pending_bytes == 0


def test_nothing_behind_an_end_is_read(decoder):
    decoded = decoder.feed(frame() + END_FRAME + frame(), NOW_NS)
    assert decoded.has_ended
    assert decoded.frames.count == 1
    assert decoder.pending_bytes == len(frame())


def test_an_end_does_not_stand_for_a_token(index):
    decoder = TickDecoder(index, needs_token=True)
    with pytest.raises(FrameError, match="token"):
        decoder.feed(END_FRAME, NOW_NS)


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (0x16030100, "the client speaks TLS, and this port does not"),
        (0, "frame of length 0"),
        (1_000_001, "frame of 1,000,001 bytes is over 1,000,000"),
        (2**31 - 1, "frame of 2,147,483,647 bytes is over 1,000,000"),
        (
            2**32 - 1,
            "control frame that is none of Probe, Auth, End and a valid Lot, after the first",
        ),
    ],
)
def test_a_bad_length_breaks_the_connection_after_what_came_before(decoder, header, complaint):
    with pytest.raises(FrameError, match=complaint) as caught:
        decoder.feed(frame() + frame(price=-1) + struct.pack(">I", header), NOW_NS)
    assert len(caught.value.decoded.frames.trades) == 1
    assert caught.value.decoded.frames.count == 2
    with pytest.raises(FrameError, match=complaint) as again:
        decoder.feed(frame(), NOW_NS)
    assert again.value.decoded.frames.count == 0


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (0, "frame of length 0"),
        (1_000_001, "frame of 1,000,001 bytes"),
        (2**32 - 1, "control frame of 2,147,483,647 bytes is over 16,640"),
        (2**31, "control frame is neither an Auth nor a Hello"),
    ],
)
def test_a_bad_first_length_breaks_the_connection(decoder, header, complaint):
    for _ in range(2):
        with pytest.raises(FrameError, match=complaint) as caught:
            decoder.feed(struct.pack(">I", header), NOW_NS)
        assert caught.value.decoded.frames.count == 0


def test_a_frame_error_is_the_peers(decoder):
    with pytest.raises(PeerError):
        decoder.feed(b"\0\0\0\0", NOW_NS)


def test_a_frame_of_the_greatest_length_is_read(decoder):
    padding = b"\x32" + b"\xa0\x8d\x06" + bytes(100_000)
    payload = tick().SerializeToString() + padding
    decoder = TickDecoder(SymbolIndex(), max_frame_bytes=len(payload))
    assert len(decoder.feed(encode_frame(payload), NOW_NS).frames.trades) == 1
    with pytest.raises(FrameError, match="is over"):
        decoder.feed(encode_frame(payload + b"\0"), NOW_NS)


def test_a_long_frame_arrives_in_small_chunks(decoder):
    data = encode_frame(tick().SerializeToString() + b"\x32\xa0\x8d\x06" + bytes(100_000))
    runs = [decoder.feed(data[at : at + 1000], NOW_NS) for at in range(0, len(data), 1000)]
    assert sum(len(run.frames.trades) for run in runs) == 1
    assert decoder.pending_bytes == 0


def test_a_hello_opens_a_stream(decoder):
    decoded = decoder.feed(encode_hello("desk-7") + frame(), NOW_NS)
    assert decoded.hello == "desk-7"
    assert decoded.frames.offset.tolist() == [0]
    assert decoder.feed(frame(), NOW_NS).hello is None


def test_a_hello_may_come_byte_by_byte(decoder):
    data = encode_hello("desk-7") + frame()
    runs = [decoder.feed(bytes([byte]), NOW_NS) for byte in data]
    assert [run.hello for run in runs if run.hello] == ["desk-7"]
    assert sum(run.frames.count for run in runs) == 1


@pytest.mark.parametrize("chunk", [1, 5, 7, 1_000])
def test_probes_are_frames_that_are_neither_ticks_nor_refused(decoder, chunk):
    data = encode_hello("desk-7") + frame() + PROBE_FRAME + frame(volume=0) + PROBE_FRAME + frame()
    decodeds = [decoder.feed(data[at : at + chunk], NOW_NS) for at in range(0, len(data), chunk)]
    frames = Frames.concatenate([decoded.frames for decoded in decodeds])
    assert frames.count == 5
    assert frames.offset.tolist() == [0, 4]
    assert frames.refused_offset.tolist() == [1, 2, 3]
    assert frames.refused_reason.tolist() == [PROBE, Reason.VOLUME, PROBE]
    assert frames.refusals().tolist() == [0, 0, 0, 1, 0, 0]
    details = [detail for decoded in decodeds for detail in decoded.details]
    assert details == ["volume 0 is not above 0"]
    assert decoder.pending_bytes == 0


def test_a_hello_after_the_first_frame_breaks_the_connection(decoder):
    with pytest.raises(FrameError, match="after the first") as caught:
        decoder.feed(encode_hello("a") + encode_hello("b"), NOW_NS)
    assert caught.value.decoded.hello == "a"


@pytest.mark.parametrize(
    "data",
    [
        encode_resume(5),
        encode_committed(5),
        encode_hello(""),
        encode_hello("x" * 129),
        encode_hello("line\nbreak"),
        encode_frame(b"\xff\xff", control=True),
    ],
)
def test_a_bad_control_frame_breaks_the_connection(decoder, data):
    for _ in range(2):
        with pytest.raises(FrameError):
            decoder.feed(data + frame(), NOW_NS)


def test_a_full_symbol_table_refuses_new_symbols_and_knows_the_old():
    index = SymbolIndex(max_symbols=2)
    data = b"".join(frame(symbol=symbol) for symbol in ("A", "B", "C", "b", "LONGER.SYMBOL"))
    decoded = TickDecoder(index).feed(data, NOW_NS)
    assert decoded.frames.trades.symbol.tolist() == [0, 1, 1]
    assert labels(decoded) == ["symbol", "symbol"]
    assert decoded.details[0] == "symbol 'C' is one too many: the symbol table is full"


def test_a_refused_tick_adds_no_symbol(decoder, index):
    decoder.feed(frame(symbol="NEW", price=-1), NOW_NS)
    assert len(index) == 0


def test_connections_share_the_index(index):
    first = TickDecoder(index).feed(frame(symbol="A") + frame(symbol="B"), NOW_NS)
    second = TickDecoder(index).feed(frame(symbol="b"), NOW_NS)
    assert first.frames.trades.symbol.tolist() == [0, 1]
    assert second.frames.trades.symbol.tolist() == [1]


def test_more_symbols_than_the_table_begins_with(decoder, index):
    names = [f"SYMBOL.NUMBER.{number}" if number % 2 else f"S{number}" for number in range(3000)]
    for _ in range(2):
        frames = decoder.feed(b"".join(frame(symbol=name) for name in names), NOW_NS).frames
        assert [index.symbols[symbol] for symbol in frames.trades.symbol] == names


def test_long_symbols_are_compared_by_more_than_their_hash(decoder, index):
    other = SymbolIndex()
    other.intern("LONG.SYMBOL.TWO")
    index.intern("LONG.SYMBOL.ONE")
    index.table[:] = other.table  # as if both had the same hash
    frames = decoder.feed(frame(symbol="LONG.SYMBOL.TWO") * 2, NOW_NS).frames
    assert frames.trades.symbol.tolist() == [1, 1]


def test_the_decoder_holds_no_reference_to_its_input(decoder):
    buffer = bytearray(frame() + frame()[:10])
    frames = decoder.feed(memoryview(buffer), NOW_NS).frames
    buffer[:] = bytes(len(buffer))
    assert frames.trades.price.tolist() == [190_125_000_000]
    assert len(decoder.feed(frame()[10:], NOW_NS).frames.trades) == 1


def test_nothing_fed_brings_nothing(decoder):
    assert decoder.feed(b"", NOW_NS).frames.count == 0
    assert decoder.feed(frame(), NOW_NS).frames.count == 1
    assert decoder.feed(b"", NOW_NS).frames.count == 0


def test_messages_are_checked_as_frames_are(index):
    messages = [tick(), tick_pb2.Tick(), tick(volume=-1), tick(symbol="msft")]
    decoded = decode_messages(messages, index, NOW_NS)
    assert decoded.frames.count == 4
    assert decoded.frames.offset.tolist() == [0, 3]
    assert labels(decoded) == ["symbol", "volume"]
    assert list(index.symbols) == ["AAPL", "MSFT"]


def test_no_messages_are_no_ticks(index):
    assert decode_messages([], index, NOW_NS).frames.count == 0


def test_a_lot_is_that_of_its_symbol_and_has_no_sequence(decoder, index):
    data = encode_hello("a") + encode_lot(" btc/usd", 10) + frame(symbol="BTC/USD")
    decoded = decoder.feed(data + PROBE_FRAME + encode_lot("ETH/USD", 20), NOW_NS)
    assert (decoded.frames.count, decoded.frames.trades.size.tolist()) == (2, [300])
    symbols = index.symbols
    assert {symbols[at]: lot for at, lot in symbols.lots_since(0)} == {"BTC/USD": 10, "ETH/USD": 20}


@pytest.mark.parametrize("length", [1, 7, 10_000])
def test_sizes_in_other_lots_than_a_symbol_has_are_converted_or_refused(index, length):
    TickDecoder(index).feed(encode_lot("A", 20) + encode_lot("B", 1), NOW_NS)
    other = TickDecoder(index)
    ticks = [frame(symbol="A", volume=volume) for volume in (3, 2, 4)]
    data = ticks[0] + encode_lot("A", 10) + ticks[0] + ticks[1] + frame(symbol="B", volume=3)
    data += encode_lot("A", 50) + ticks[2] + encode_lot("A", 20) + ticks[2]
    parts = [other.feed(data[n : n + length], NOW_NS).frames for n in range(0, len(data), length)]
    frames = Frames.concatenate(parts)
    assert frames.trades.size.tolist() == [3, 1, 3, 10, 4]
    assert frames.count == 6
    assert frames.refused_offset.tolist() == [1]
    assert frames.refused_reason.tolist() == [Reason.VOLUME]


def test_a_size_that_is_too_large_in_the_lots_of_its_symbol_is_refused(index):
    TickDecoder(index).feed(encode_lot("A", 1), NOW_NS)
    data = encode_lot("A", 1_000) + frame(symbol="A", volume=2**62) + frame(symbol="A", volume=1)
    frames = TickDecoder(index).feed(data, NOW_NS).frames
    assert (frames.trades.size.tolist(), frames.refused_offset.tolist()) == ([1_000], [0])


def test_a_symbol_without_a_lot_has_the_sizes_that_are_sent(decoder, index):
    decoder.feed(frame(symbol="A"), NOW_NS)
    frames = decoder.feed(encode_lot("A", 5) + frame(symbol="A"), NOW_NS).frames
    assert (frames.trades.size.tolist(), index.symbols.lot(0)) == ([300], 5)


@pytest.mark.parametrize(("symbol", "step"), [("", 1), ("A", 0), ("A", -1), ("\x00", 1)])
def test_a_wrong_lot_breaks_the_connection_after_what_came_before(decoder, symbol, step):
    with pytest.raises(FrameError, match="none of Probe, Auth, End and a valid Lot") as caught:
        decoder.feed(frame() + encode_lot(symbol, step) + frame(), NOW_NS)
    assert len(caught.value.decoded.frames.trades) == 1


def test_a_lot_of_a_symbol_for_which_there_is_no_room_is_left_out():
    index = SymbolIndex(1)
    frames = (
        TickDecoder(index).feed(frame() + encode_lot("B", 5) + frame(symbol="B"), NOW_NS).frames
    )
    assert (list(index.symbols), index.symbols.lots) == (["AAPL"], 0)
    assert frames.refused_reason.tolist() == [Reason.SYMBOL]


def test_a_lot_may_come_first_and_an_auth_between_lots(index):
    decoder = TickDecoder(index)
    data = encode_lot("A", 5) + encode_lot("B", 6) + frame(symbol="A") + encode_auth("token")
    decoded = decoder.feed(data + encode_lot("C", 7) + frame(symbol="C"), NOW_NS)
    assert (len(decoded.frames.trades), decoded.token) == (1, "token")
    assert decoder.feed(b"", NOW_NS).frames.count == 1
    assert [lot for _, lot in index.symbols.lots_since(0)] == [5, 6, 7]


def test_a_lot_first_is_no_token(index):
    with pytest.raises(FrameError, match="neither an Auth nor a Hello"):
        TickDecoder(index, needs_token=True).feed(encode_lot("A", 5), NOW_NS)
    assert not index.symbols.lots


def test_the_lot_of_a_symbol_that_a_client_may_not_write_is_left_out(decoder, index):
    decoder.may_write = {"A"}.__contains__
    decoder.feed(encode_lot("A", 5) + encode_lot("B", 6), NOW_NS)
    assert list(index.symbols) == ["A"]
