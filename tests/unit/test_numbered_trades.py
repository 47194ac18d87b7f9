"""The name that a stream gives itself by its first trades."""

from __future__ import annotations

import numpy as np
import pytest

from mdtool.adapters.dbn_source import DbnSource
from mdtool.adapters.numbered_trades import FIRST_TRADES, NUMBERED, NumberedTrades
from mdtool.core.errors import CorruptStreamError
from tests.support.instruments import bare
from tests.support.store_commands import dbn, trades


def _numbered(pieces: list[bytes]) -> NumberedTrades:
    waiting = [*pieces, b""]
    source = DbnSource("f.dbn", lambda _n_bytes: waiting.pop(0), lambda: None)
    return NumberedTrades(source, stream=3)


def _kept(numbered: NumberedTrades) -> list[int]:
    return [int(n) for batch in numbered for n in batch.records["number"]]


@pytest.mark.parametrize("piece_bytes", [1, 7, 48, 49, 150, 1_000, 1 << 20])
def test_it_is_the_same_however_the_stream_comes(piece_bytes):
    stream = dbn(trades(40))
    whole = _numbered([stream]).digests()
    pieces = [stream[k : k + piece_bytes] for k in range(0, len(stream), piece_bytes)]
    numbered = _numbered(pieces)
    assert numbered.digests() == whole
    assert len(set(whole)) == FIRST_TRADES
    assert _kept(numbered) == list(range(40))


@pytest.mark.parametrize("count", [1, 2, FIRST_TRADES - 1, FIRST_TRADES])
def test_a_beginning_has_the_names_that_the_whole_begins_with(count):
    records = trades(40)
    assert (
        _numbered([dbn(records[:count])]).digests() == _numbered([dbn(records)]).digests()[:count]
    )


@pytest.mark.parametrize("name", ["ts_event", "ts_recv", "price", "size", "instrument_id"])
def test_another_trade_makes_another_name(name):
    records = trades(FIRST_TRADES)
    changed = records.copy()
    changed[name][5] = changed[name][5] % 5 + 1 if name == "instrument_id" else 77
    before, after = (_numbered([dbn(each)]).digests() for each in (records, changed))
    assert [a == b for a, b in zip(before, after, strict=True)] == [True] * 5 + [False] * 11


def test_a_stream_that_breaks_off_among_its_first_trades_has_what_came():
    numbered = _numbered([dbn(trades(4))[:-20]])
    assert len(numbered.digests()) == 3
    records = bare(numbered)
    first = next(records)
    assert first.dtype == NUMBERED
    np.testing.assert_array_equal(first["number"], [0, 1, 2])
    with pytest.raises(CorruptStreamError, match="ends inside a record"):
        next(records)
