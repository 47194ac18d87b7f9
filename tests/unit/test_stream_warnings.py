"""Warnings of live streams: of any version of DBN, by code and by text."""

from __future__ import annotations

import databento_dbn as dbn
import numpy as np
import pytest

import mdtool
from mdtool.adapters.dbn_files import open_source
from mdtool.core.batch import Resolver
from mdtool.core.instruments import Instruments
from mdtool.core.stream_warnings import warnings_in
from mdtool.engine.book.rebuild import Rebuild
from mdtool.engine.book.verify import Verifier
from mdtool.engine.book.view import views
from mdtool.engine.quotes import LatestQuotes
from mdtool.wire.dbn import DbnDecoder
from tests.support.dbn_files import MAY_1, header, mapping, order, write

SECOND = 10**9


def system(text: str, code: int = 2, version: int = 3) -> bytes:
    if version == 1:
        return bytes(dbn.SystemMsgV1(ts_event=MAY_1, msg=text))
    return bytes(dbn.SystemMsg(ts_event=MAY_1, msg=text, code=dbn.SystemCode(code)))


def error(text: str, code: int | None = 6, version: int = 3) -> bytes:
    if version == 1:
        return bytes(dbn.ErrorMsgV1(ts_event=MAY_1, err=text))
    given = {} if code is None else {"code": dbn.ErrorCode(code)}
    return bytes(dbn.ErrorMsg(ts_event=MAY_1, err=text, is_last=True, **given))


def decoded(record: bytes, version: int = 3) -> np.ndarray:
    decoder = DbnDecoder()
    head = bytearray(header({}, schema=None).encode())
    if version == 1:
        head = bytearray(dbn.Metadata("TEST", 0, version=1, **STYPES).encode())
    else:
        head[3] = version
    (records,) = decoder.feed(bytes(head) + record)
    return records


STYPES = {
    "stype_in": dbn.SType("raw_symbol"),
    "stype_out": dbn.SType("instrument_id"),
    "schema": None,
    "symbols": [],
    "partial": [],
    "not_found": [],
    "mappings": [],
}
SLOW = "Warning: slow reading, not keeping pace with mbo data"


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize(
    ("record", "kind"),
    [
        ((system, SLOW, 2), "slow_reader"),
        ((system, "Slow client: records skipped", 255), "slow_reader"),
        ((system, "Records were skipped", 255), "skipped_records"),
        ((error, "Skipped 12 records after slow reading", 7), "skipped_records"),
        ((error, "gateway restart", 6), "error_record"),
        ((error, "Failed to resolve symbol: X", 4), "error_record"),
        ((system, "Heartbeat", 0), None),
        ((system, "Subscription request 1 for mbo data succeeded", 1), None),
        ((system, "Finished mbo replay", 3), None),
        ((system, "End of interval for ohlcv-1m", 4), None),
    ],
)
def test_a_warning_is_known_by_its_text_or_its_code(version, record, kind):
    make, text, code = record
    found = warnings_in(decoded(make(text, code, version), version))
    assert [warning.kind for warning in found] == [kind] * (kind is not None)
    for warning in found:
        assert (warning.text, warning.ts_ns) == (text, MAY_1)
        if version > 1:  # databento_dbn derives some codes of v1 from texts
            assert warning.code == (None if code == 255 else code)
            assert str(warning) == (text if code == 255 else f"{text} (code {code})")


def test_a_code_alone_is_enough():
    assert warnings_in(decoded(system("?", 2)))[0].kind == "slow_reader"
    assert warnings_in(decoded(error("?", 7)))[0].kind == "skipped_records"


def test_no_other_records_are_warnings():
    assert warnings_in(decoded(order(1, MAY_1, "A", "B", 100, 1, 1))) == []
    assert warnings_in(decoded(mapping(1, "slow", MAY_1))) == []


@pytest.fixture
def batch():
    resolver = Resolver(Instruments(), "a stream")
    return lambda *records: resolver.batch(decoded(b"".join(records)))


def is_partial(rebuild):
    return [view.is_partial for view in views(rebuild.books)]


def test_books_are_partial_until_their_next_snapshot(batch):
    rebuild = Rebuild()
    for instrument in (1, 2):
        rebuild.update(batch(order(instrument, MAY_1, "R")))
        rebuild.update(batch(order(instrument, MAY_1, "A", "B", 100, 1, 1)))
    assert is_partial(rebuild) == [False, False]
    rebuild.update(batch(system("Heartbeat", 0)))
    rebuild.update(batch(mapping(1, "ESM4", MAY_1)))
    assert is_partial(rebuild) == [False, False]
    rebuild.update(batch(system(SLOW)))
    rebuild.update(batch(order(1, MAY_1, "A", "B", 101, 1, 2)))
    assert is_partial(rebuild) == [True, True]
    rebuild.update(batch(order(1, MAY_1, "R")))
    assert is_partial(rebuild) == [False, True]


def test_events_that_a_warning_interrupts_are_applied_as_far_as_they_came(batch):
    rebuild = Rebuild()
    begun = batch(order(1, MAY_1, "R"), order(1, MAY_1, "A", "B", 100, 1, 1))
    records = begun.records.copy()
    records["flags"] = 0
    rebuild.update(begun.with_records(records))
    assert len(rebuild.books) == 0
    rebuild.update(batch(error("gateway restart")))
    (view,) = views(rebuild.books)
    assert (view.total_orders, view.is_partial) == (1, True)
    assert len(rebuild.events.held) == 0


def test_they_are_findings_of_the_stream(batch):
    verifier = Verifier()
    verifier.update(batch(order(1, MAY_1, "R")))
    verifier.update(batch(system(SLOW), system(SLOW)))
    verifier.update(batch(error("gateway restart")))
    verifier.update(batch(order(1, MAY_1, "A", "B", 100, 1, 1)))
    slow, failed = verifier.findings()
    assert (slow.kind, slow.count, slow.first_record) == ("slow_reader", 2, 1)
    assert (failed.kind, failed.count, str(failed.warning)) == (
        "error_record",
        1,
        "gateway restart (code 6)",
    )
    assert (slow.instrument, slow.channel) == (None, None)


def test_quotes_go_on(batch):
    quotes = LatestQuotes()
    quotes.update(batch(order(1, MAY_1, "R"), order(1, MAY_1, "A", "B", 100, 1, 1)))
    assert len(quotes.update(batch(system(SLOW)))) == 0


class TestOfFiles:
    @pytest.fixture
    def path(self, tmp_path):
        return write(
            tmp_path / "f.dbn",
            header({}, schema=None),
            mapping(1, "ESM4", MAY_1),
            order(1, MAY_1, "R"),
            order(1, MAY_1 + SECOND, "A", "B", 100, 1, 1),
            system(SLOW),
            system(SLOW),
            error("gateway restart"),
            order(1, MAY_1 + 2 * SECOND, "A", "A", 101, 1, 2),
        )

    def test_their_counts_are_logged_once(self, path, caplog):
        with open_source(str(path)) as source:
            assert sum(len(batch) for batch in source) == 7
        at = "2024-05-01T00:00:00.000000000Z"
        slow, failed = f"{SLOW} (code 2) at {at}", f"gateway restart (code 6) at {at}"
        told = f"2 slow_reader: {slow}; 1 error_record: {failed}"
        assert caplog.messages == [f"{path}: the stream may lack records: {told}"]

    def test_snapshots_of_the_books_say_so(self, path):
        (last,) = mdtool.book(path)
        assert last.is_partial
        (before,) = mdtool.book(path, at=MAY_1 + SECOND)
        assert len(before.bids) == 1
