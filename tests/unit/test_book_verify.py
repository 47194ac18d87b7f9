import numpy as np
import pytest

from mdtool.core import stream_warnings
from mdtool.core.dtypes import MBO
from mdtool.engine.book.verify import KINDS, SEQUENCE_BACKWARDS, SEQUENCE_GAP, Finding, Verifier
from mdtool.engine.simulate import Exchange
from tests.support.book_streams import DAY, LAST, MAYBE_BAD_BOOK, NOON, SNAPSHOT, as_mbo
from tests.support.instruments import batch, index_of

BOOK = index_of(1, 7)
PX = 100


def row(order_id, action=b"A", price=PX, size=1, side=b"B", flags=LAST, ts=NOON):
    return (1, 7, order_id, price, size, flags, action, side, ts, ts)


def found(*rows) -> list[Finding]:
    verifier = Verifier()
    verifier.update(batch(as_mbo([*rows])))
    return [*verifier.findings()]


CASES = {
    "unknown_cancel": [row(1, b"C")],
    "unknown_modify": [row(1, b"M")],
    "over_cancel": [row(1), row(1, b"C", size=2)],
    "duplicate_add": [row(1), row(1)],
    "side_change": [row(1), row(1, b"M", price=PX + 5, side=b"A")],
    "unusable": [row(1, side=b"N")],
    "crossed": [row(1), row(2, price=PX - 1, side=b"A")],
    "locked": [row(1), row(2, side=b"A")],
    "time_backwards": [row(1), row(2, ts=NOON - 1)],
    "maybe_bad_book": [row(1, flags=LAST | MAYBE_BAD_BOOK)],
}


@pytest.mark.parametrize("kind", CASES)
def test_kinds_of_books(kind):
    rows = CASES[kind]
    at = len(rows) - 1
    ts_recv = rows[-1][-1]
    assert found(*rows) == [Finding(kind, BOOK, None, 1, at, ts_recv)]


def test_every_kind_has_a_test():
    assert {*CASES, SEQUENCE_GAP, SEQUENCE_BACKWARDS, *stream_warnings.KINDS} == set(KINDS)


def test_what_is_crossed_within_an_event_only_is_not():
    inside = row(2, price=PX - 1, side=b"A", flags=0)
    assert found(row(1), inside, row(1, b"C")) == []


def test_the_first_of_each_kind_is_dated_however_the_stream_is_cut():
    rows = [row(1), row(2, b"C", ts=NOON + 3), row(3, b"C", ts=NOON + 4), row(4, b"M", ts=NOON + 9)]
    stream = as_mbo(rows)
    verifier = Verifier()
    for at in range(len(stream)):
        verifier.update(batch(stream[at : at + 1]))
    assert [*verifier.findings()] == found(*rows)
    assert [(f.kind, f.count, f.first_record, f.first_ts_ns) for f in verifier.findings()] == [
        ("unknown_cancel", 2, 1, NOON + 3),
        ("unknown_modify", 1, 3, NOON + 9),
    ]


def numbered(*sequences, **fields) -> np.ndarray:
    """Records that change no book, with these numbers."""
    stream = as_mbo([row(0, b"N") for _ in sequences])
    stream["sequence"] = sequences
    for name, values in fields.items():
        stream[name] = values
    return stream


def sequence_findings(stream, all_jumps=False, pieces=1) -> list[tuple]:
    verifier = Verifier(all_jumps)
    for part in np.array_split(stream, pieces):
        verifier.update(batch(part))
    return [(f.kind, f.count, f.first_record) for f in verifier.findings()]


class TestSequences:
    def test_consecutive_numbers_and_those_of_one_packet(self):
        assert sequence_findings(numbered(5, 5, 6, 7, 7, 8)) == []

    @pytest.mark.parametrize("pieces", [1, 3, 200])
    def test_a_jump_among_consecutive_numbers_is_a_gap(self, pieces):
        stream = numbered(*range(150), *range(160, 300))
        assert sequence_findings(stream, pieces=pieces) == [(SEQUENCE_GAP, 1, 150)]

    def test_jumps_of_part_of_a_channel_are_none(self):
        stream = numbered(*range(0, 300, 2))
        assert sequence_findings(stream) == []
        assert sequence_findings(stream, all_jumps=True) == [(SEQUENCE_GAP, 149, 1)]

    def test_each_channel_of_each_publisher_counts_by_itself(self):
        stream = numbered(*np.repeat(np.arange(200), 4).tolist())
        stream["channel_id"] = np.arange(800) % 2
        stream["publisher_id"] = 1 + np.arange(800) % 4 // 2
        assert sequence_findings(stream) == []
        verifier = Verifier()
        verifier.update(batch(stream))
        assert [(c.publisher_id, c.channel_id, c.steps) for c in verifier.channels()] == [
            (1, 0, 199),
            (1, 1, 199),
            (2, 0, 199),
            (2, 1, 199),
        ]

    def test_numbers_that_fall(self):
        assert sequence_findings(numbered(5, 6, 3, 4, 2)) == [(SEQUENCE_BACKWARDS, 2, 2)]

    def test_numbers_of_different_instruments_may_fall_between_them(self):
        stream = numbered(5, 3, 6, 4, instrument_id=[1, 2, 1, 2])
        assert sequence_findings(stream) == []

    def test_they_may_begin_anew_on_another_day_or_with_a_clear(self):
        assert sequence_findings(numbered(500, 1, ts_recv=[NOON, NOON + DAY])) == []
        assert sequence_findings(numbered(500, 1, action=[b"N", b"R"])) == []

    def test_the_orders_of_a_snapshot_have_old_numbers(self):
        stream = numbered(500, 3, 1, 501, flags=[LAST, SNAPSHOT, SNAPSHOT | LAST, LAST])
        assert sequence_findings(stream) == []

    def test_they_wrap_around(self):
        assert sequence_findings(numbered(*range(2**32 - 100, 2**32), *range(100))) == []

    def test_as_many_books_as_there_are(self):
        n = 3_000
        stream = numbered(*range(n), *range(n), instrument_id=np.arange(2 * n) % n)
        assert sequence_findings(stream) == [], "the second round falls for the channel alone"
        stream["sequence"][n:] -= 1
        stream["sequence"][n] = 2**31
        count = sum(f[1] for f in sequence_findings(stream) if f[0] == SEQUENCE_BACKWARDS)
        assert count == n


def test_a_simulated_market_is_in_order():
    verifier = Verifier(all_jumps=True)
    verifier.update(batch(Exchange(seed=3).generate(20_000)))
    assert [*verifier.findings()] == []


def test_a_record_taken_out_of_it_is_missed():
    stream = Exchange(seed=3).generate(20_000)
    packet = stream["sequence"] == stream["sequence"][10_000]
    verifier = Verifier()
    verifier.update(batch(stream[~packet]))
    assert SEQUENCE_GAP in {finding.kind for finding in verifier.findings()}


def test_nothing_of_nothing():
    verifier = Verifier()
    verifier.update(batch(np.empty(0, MBO)))
    assert ([*verifier.findings()], verifier.channels(), verifier.records) == ([], [], 0)
