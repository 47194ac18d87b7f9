import datetime as dt

import databento_dbn as dbn
import numpy as np
import pytest

from mdtool.core.dtypes import SYMBOL_MAPPING
from mdtool.core.symbology import Symbology
from mdtool.wire.dbn_metadata import unite
from tests.reference import dbn_streams as streams

DAY_1, DAY_2, DAY_3, DAY_4 = (dt.date(2024, 1, day) for day in (1, 2, 3, 4))
MIDNIGHT_2 = 1_704_153_600 * 10**9


class Mapping:
    def __init__(self, raw_symbol, *intervals):
        self.raw_symbol = raw_symbol
        self.intervals = [Interval(*interval) for interval in intervals]


class Interval:
    def __init__(self, start_date, end_date, symbol):
        self.start_date, self.end_date, self.symbol = start_date, end_date, symbol


def metadata(*mappings, stype_in="raw_symbol", stype_out="instrument_id"):
    return dbn.Metadata(
        dataset="TEST",
        start=MIDNIGHT_2,
        stype_in=dbn.SType(stype_in),
        stype_out=dbn.SType(stype_out),
        schema=dbn.Schema.MBO,
        mappings=mappings,
    )


DATED = metadata(
    Mapping("ONE", (DAY_1, DAY_2, "7"), (DAY_2, DAY_3, "8")),
    Mapping("TWO", (DAY_2, DAY_3, "7"), (DAY_3, DAY_4, "")),
)


def orders(*rows):
    records = streams.mbo(len(rows))
    records["instrument_id"] = [row[0] for row in rows]
    records["ts_recv"] = [row[1] for row in rows]
    return records


def names(symbology, records):
    indices, table = symbology.symbols_of(records)
    assert indices.dtype == np.uint32
    return [table[index] for index in indices.tolist()]


def mapping_records(*pairs):
    return np.frombuffer(b"".join(streams.mapping(*pair) for pair in pairs), SYMBOL_MAPPING)


def test_an_id_means_another_symbol_on_another_day():
    symbology = Symbology(DATED)
    records = orders((7, MIDNIGHT_2 - 1), (7, MIDNIGHT_2), (8, MIDNIGHT_2), (8, MIDNIGHT_2 - 1))
    assert names(symbology, records) == ["ONE", "TWO", "ONE", "8"]
    assert symbology.symbol(7, MIDNIGHT_2 - 1) == "ONE"
    assert symbology.symbol(7, MIDNIGHT_2) == "TWO"


def test_the_day_is_that_of_the_index_timestamp():
    records = orders((7, MIDNIGHT_2))
    records["ts_event"] = MIDNIGHT_2 - 1
    assert names(Symbology(DATED), records) == ["TWO"]


@pytest.mark.parametrize("instrument_id", [0, 6, 9, 2**32 - 1])
def test_an_id_without_a_symbol_is_its_digits(instrument_id):
    symbology = Symbology(DATED)
    assert symbology.symbol(instrument_id, MIDNIGHT_2) == str(instrument_id)
    assert symbology.symbol(7, MIDNIGHT_2 + 2 * streams.DAY) == "7"


def test_a_record_without_a_time_has_no_day():
    records = orders((7, 2**64 - 1), (7, MIDNIGHT_2))
    assert names(Symbology(DATED), records) == ["7", "TWO"]


def test_without_metadata_every_id_is_its_digits():
    assert names(Symbology(), orders((3, 0), (3, 0), (12, 0))) == ["3", "3", "12"]


def test_mappings_may_stand_the_other_way_round():
    turned = metadata(
        Mapping("7", (DAY_2, DAY_3, "ONE")), stype_in="instrument_id", stype_out="raw_symbol"
    )
    assert Symbology(turned).symbol(7, MIDNIGHT_2) == "ONE"


def test_mappings_between_symbols_say_nothing_of_ids():
    between = metadata(Mapping("ES.c.0", (DAY_2, DAY_3, "7")), stype_out="raw_symbol")
    assert Symbology(between).intervals() == {}


def test_a_mapping_record_holds_from_where_it_stands_on_every_day():
    symbology = Symbology(DATED)
    before = symbology.version
    symbology.learn(mapping_records((7, "LIVE"), (99, "NEW")))
    assert symbology.version > before
    assert names(symbology, orders((7, 0), (7, MIDNIGHT_2), (99, 0), (8, MIDNIGHT_2))) == [
        "LIVE",
        "LIVE",
        "NEW",
        "ONE",
    ]
    symbology.learn(mapping_records((7, "LATER")))
    assert symbology.symbol(7, MIDNIGHT_2) == "LATER"


def test_indices_stay_when_more_symbols_come():
    symbology = Symbology(DATED)
    first, table = symbology.symbols_of(orders((7, MIDNIGHT_2), (55, 0)))
    symbology.learn(mapping_records((99, "NEW")))
    assert [table[index] for index in first.tolist()] == ["TWO", "55"]


def test_every_lookup_is_that_of_a_plain_search():
    rng = np.random.default_rng(1)
    mappings = [
        Mapping(f"S{i}", (DAY_1, DAY_2, str(i)), (DAY_2, DAY_4, str((i + 1) % 50)))
        for i in range(50)
    ]
    symbology = Symbology(metadata(*mappings))
    ids = rng.integers(0, 60, 2000)
    times = MIDNIGHT_2 + rng.integers(-2 * streams.DAY, 4 * streams.DAY, 2000)
    wanted = []
    for instrument_id, ts_ns in zip(ids.tolist(), times.tolist(), strict=True):
        day = dt.date(1970, 1, 1) + dt.timedelta(days=ts_ns // streams.DAY)
        found = [
            symbol
            for start, end, symbol in symbology.intervals().get(instrument_id, [])
            if start <= day < end
        ]
        wanted.append(found[0] if found else str(instrument_id))
    records = streams.mbo(2000)
    records["instrument_id"], records["ts_recv"] = ids, times
    assert names(symbology, records) == wanted


def test_a_united_stream_knows_the_symbols_of_each():
    other = metadata(Mapping("SIX", (DAY_1, DAY_4, "6")))
    symbology = Symbology(unite([("a", DATED), ("b", other)]))
    assert names(symbology, orders((6, MIDNIGHT_2), (7, MIDNIGHT_2))) == ["SIX", "TWO"]
