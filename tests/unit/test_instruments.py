"""Records are resolved to instruments by what their ids mean where the records stand."""

import datetime as dt
from itertools import pairwise

import databento_dbn as dbn
import numpy as np
import pytest

from mdtool.core.batch import Batch, Resolver
from mdtool.core.dtypes import SYMBOL_MAPPING
from mdtool.core.errors import InputError
from mdtool.core.instruments import Instruments, with_room
from mdtool.core.symbology import dated_mappings
from mdtool.wire.dbn_metadata import unite
from tests.reference import dbn_streams as streams

DAY_1, DAY_2, DAY_3, DAY_4 = (dt.date(2024, 1, day) for day in (1, 2, 3, 4))
MIDNIGHT_2 = 1_704_153_600 * 10**9
DAY = streams.DAY


class Mapping:
    def __init__(self, raw_symbol, *intervals):
        self.raw_symbol = raw_symbol
        self.intervals = [Interval(*interval) for interval in intervals]


class Interval:
    def __init__(self, start_date, end_date, symbol):
        self.start_date, self.end_date, self.symbol = start_date, end_date, symbol


def metadata(
    *mappings, stype_in="raw_symbol", stype_out="instrument_id", dataset="TEST", symbols=None
):
    return dbn.Metadata(
        dataset=dataset,
        start=MIDNIGHT_2,
        stype_in=dbn.SType(stype_in),
        stype_out=dbn.SType(stype_out),
        schema=dbn.Schema.MBO,
        symbols=symbols or [mapping.raw_symbol for mapping in mappings],
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


def mapped(*entries):
    """Mapping records of ids, names and the raw symbols that these resolved to."""
    records = mappings(*((number, name) for number, name, _ in entries)).copy()
    for record, (_, _, raw) in zip(records, entries, strict=True):
        if raw:
            record["stype_out_symbol"] = raw
    return records


def mappings(*pairs):
    return np.frombuffer(b"".join(streams.mapping(*pair) for pair in pairs), SYMBOL_MAPPING)


def resolver(header=None, **options):
    return Resolver(Instruments(**options), "a", header)


def names(resolver, records):
    batch = resolver.batch(records)
    assert batch.instrument.dtype == np.uint32
    return batch.symbols.tolist()


class TestDated:
    def test_an_id_means_another_symbol_on_another_day(self):
        rows = [(7, MIDNIGHT_2 - 1), (7, MIDNIGHT_2), (8, MIDNIGHT_2), (8, MIDNIGHT_2 - 1)]
        batch = resolver(DATED).batch(orders(*rows))
        assert batch.symbols.tolist() == ["ONE", "TWO", "ONE", None]
        one, two, also_one, unnamed = batch.instrument.tolist()
        assert one == also_one
        assert len({one, two, unnamed}) == 3

    def test_the_day_is_that_of_the_index_timestamp(self):
        records = orders((7, MIDNIGHT_2))
        records["ts_event"] = MIDNIGHT_2 - 1
        assert names(resolver(DATED), records) == ["TWO"]
        bars = streams.bars(1, 32)
        bars["instrument_id"], bars["ts_event"] = 7, MIDNIGHT_2 - 1
        assert names(resolver(DATED), bars) == ["ONE"]

    @pytest.mark.parametrize("instrument_id", [0, 6, 9, 2**32 - 1])
    def test_an_id_without_a_symbol_is_labelled_by_nothing(self, instrument_id):
        batch = resolver(DATED).batch(orders((instrument_id, MIDNIGHT_2)))
        assert batch.symbols.tolist() == [None]
        assert batch.instruments[batch.instrument[0]].text == str(instrument_id)

    def test_a_record_without_a_time_has_no_day(self):
        assert names(resolver(DATED), orders((7, 2**64 - 1), (7, MIDNIGHT_2))) == [None, "TWO"]

    def test_a_gap_between_the_days_of_a_name_is_an_instrument_of_its_own(self):
        header = metadata(Mapping("ESM4", (DAY_1, DAY_2, "1"), (DAY_3, DAY_4, "1")))
        rows = [(1, MIDNIGHT_2 + day * DAY) for day in (-1, 0, 1, 2, -2)]
        batch = resolver(header).batch(orders(*rows))
        assert batch.symbols.tolist() == ["ESM4", None, "ESM4", None, None]
        before, gap, after, later, earlier = batch.instrument.tolist()
        assert before == after
        assert len({before, gap, later, earlier}) == 4

    def test_without_a_header_every_id_is_one_instrument_on_all_days(self):
        batch = resolver().batch(orders((3, 0), (3, 5 * DAY), (12, 0)))
        assert batch.instrument.tolist() == [0, 0, 1]
        assert batch.symbols.tolist() == [None] * 3

    def test_mappings_may_stand_the_other_way_round(self):
        turned = metadata(
            Mapping("7", (DAY_2, DAY_3, "ONE")), stype_in="instrument_id", stype_out="raw_symbol"
        )
        assert names(resolver(turned), orders((7, MIDNIGHT_2))) == ["ONE"]

    def test_mappings_between_symbols_say_nothing_of_ids(self):
        between = metadata(Mapping("ES.c.0", (DAY_2, DAY_3, "7")), stype_out="raw_symbol")
        assert [*dated_mappings(between)] == []

    def test_publishers_are_told_apart_unless_they_are_consolidated(self):
        records = orders((8, MIDNIGHT_2), (8, MIDNIGHT_2))
        records["publisher_id"] = [39, 40]
        apart = resolver(DATED).batch(records)
        assert apart.instrument.tolist() == [0, 1]
        assert apart.instruments.publisher_ids.tolist() == [39, 40]
        together = resolver(DATED, consolidates=True).batch(records)
        assert together.instrument.tolist() == [0, 0]

    def test_every_lookup_is_that_of_a_plain_search(self):
        rng = np.random.default_rng(1)
        header = metadata(
            *(
                Mapping(f"S{i}", (DAY_1, DAY_2, str(i)), (DAY_2, DAY_4, str((i + 1) % 50)))
                for i in range(50)
            )
        )
        ids = rng.integers(0, 60, 2000)
        times = MIDNIGHT_2 + rng.integers(-2 * DAY, 4 * DAY, 2000)
        wanted = []
        for instrument_id, ts_ns in zip(ids.tolist(), times.tolist(), strict=True):
            found = [
                interval.name
                for interval in dated_mappings(header)
                if interval.instrument_id == instrument_id
                and interval.first_day <= ts_ns // DAY < interval.end_day
            ]
            wanted.append(found[0] if found else None)
        records = streams.mbo(2000)
        records["instrument_id"], records["ts_recv"] = ids, times
        for edges in ([0, 2000], [0, 1, 7, 500, 2000]):
            resolved = resolver(header)
            parts = [resolved.batch(records[begin:end]) for begin, end in pairwise(edges)]
            assert [name for part in parts for name in part.symbols] == wanted


class TestNames:
    TWO_NAMES = metadata(
        Mapping("ES.v.0", (DAY_1, DAY_4, "1")),
        Mapping("ES.c.0", (DAY_1, DAY_3, "1"), (DAY_3, DAY_4, "2")),
        stype_in="continuous",
    )

    def test_without_a_selection_the_first_name_requested_is_shown(self):
        assert names(resolver(self.TWO_NAMES), orders((1, MIDNIGHT_2))) == ["ES.v.0"]

    @pytest.mark.parametrize("name", ["ES.c.0", "ES.v.0"])
    def test_any_name_selects_and_labels(self, name):
        instruments = Instruments()
        resolved = Resolver(instruments, "a", self.TWO_NAMES)
        instruments.select([name])
        batch = resolved.batch(orders((1, MIDNIGHT_2), (1, MIDNIGHT_2 + DAY), (9, MIDNIGHT_2)))
        is_second_day_selected = name == "ES.v.0"
        assert batch.is_selected.tolist() == [
            True,
            is_second_day_selected,
            False,
        ]
        assert batch.symbols[0] == name

    def test_a_raw_symbol_goes_before_other_names_and_names_of_all_files_count(self):
        instruments = Instruments()
        continuous = Resolver(instruments, "a", self.TWO_NAMES)
        raw = Resolver(instruments, "b", metadata(Mapping("ESH4", (DAY_1, DAY_4, "1"))))
        rows = orders((1, MIDNIGHT_2), (1, MIDNIGHT_2 + DAY))
        assert names(continuous, rows) == names(raw, rows) == ["ESH4", "ESH4"]
        assert continuous.batch(rows).instrument.tolist() == raw.batch(rows).instrument.tolist()

    def test_a_continuous_name_never_joins_two_contracts(self):
        batch = resolver(self.TWO_NAMES).batch(orders((1, MIDNIGHT_2), (2, MIDNIGHT_2 + DAY)))
        assert batch.instrument.tolist() == [0, 1]

    @pytest.mark.parametrize(
        ("later", "indices"),
        [
            pytest.param("ES.c.0", [0, 0], id="one name whose days are in two headers"),
            pytest.param("ES.v.0", [0, 1], id="another name, on no day of the first one's"),
        ],
    )
    def test_days_are_of_one_contract_if_a_name_holds_on_both(self, later, indices):
        """An id is valid for a day: without a name on both, it may be two contracts."""
        headers = [
            metadata(Mapping("ES.c.0", (DAY_1, DAY_2, "1")), stype_in="continuous"),
            metadata(Mapping(later, (DAY_2, DAY_3, "1")), stype_in="continuous"),
        ]
        instruments = Instruments()
        resolved = [Resolver(instruments, "a", header) for header in headers][-1]
        batch = resolved.batch(orders((1, MIDNIGHT_2 - 1), (1, MIDNIGHT_2)))
        assert batch.symbols.tolist() == ["ES.c.0", later]
        assert batch.instrument.tolist() == indices

    def test_a_parent_names_many_and_what_it_resolved_to_is_raw(self):
        header = metadata(
            Mapping("ES.FUT", (DAY_1, DAY_4, "1"), (DAY_1, DAY_4, "2")),
            Mapping("ESH4", (DAY_1, DAY_4, "1")),
            stype_in="parent",
        )
        instruments = Instruments()
        instruments.select(["ES.FUT"])
        batch = Resolver(instruments, "a", header).batch(orders((1, MIDNIGHT_2), (2, MIDNIGHT_2)))
        assert batch.instrument.tolist() == [0, 1]
        assert batch.symbols.tolist() == ["ES.FUT", "ES.FUT"]
        assert instruments[0].names == ("ESH4", "ES.FUT")

    @pytest.mark.parametrize(
        ("requested", "selected", "found"),
        [
            (["ES.FUT"], ["ES.FUT"], ["ES.FUT", "ES.FUT", "ES.FUT"]),
            (["ES.FUT"], ["ESM4"], ["ESM4"]),
            (["ES.FUT", "ESX.FUT", "NQ.FUT"], ["ES.FUT"], ["ES.FUT"]),
            (["ES.FUT", "ESX.FUT", "NQ.FUT"], ["NQ.FUT", "ESX.FUT"], ["NQ.FUT", "ESX.FUT"]),
        ],
    )
    def test_a_parent_that_only_the_request_names_selects(self, requested, selected, found):
        days = DAY_1, DAY_4
        header = metadata(
            *(Mapping(name, (*days, str(n))) for n, name in enumerate(["ESM4", "NQM4", "ESXM4"])),
            stype_in="parent",
            symbols=requested,
        )
        instruments = Instruments()
        instruments.select(selected)
        batch = Resolver(instruments, "a", header).batch(
            orders(*((n, MIDNIGHT_2) for n in range(3)))
        )
        assert batch.symbols[batch.is_selected].tolist() == found
        assert instruments[0].names == ("ESM4", "ES.FUT")

    def test_a_continuous_name_among_raw_symbols_is_no_contract(self):
        header = metadata(
            Mapping("ES.c.0", (DAY_1, DAY_2, "1"), (DAY_2, DAY_3, "2")),
            Mapping("ESM4", (DAY_1, DAY_4, "1")),
            Mapping("ESU4", (DAY_1, DAY_4, "2")),
        )
        rows = orders(
            (1, MIDNIGHT_2), (2, MIDNIGHT_2), (1, MIDNIGHT_2 - DAY), (2, MIDNIGHT_2 - DAY)
        )
        batch = resolver(header).batch(rows)
        assert batch.instrument.tolist() == [0, 1, 0, 1]
        assert batch.symbols.tolist() == ["ESM4", "ESU4", "ESM4", "ESU4"]

    def test_an_id_without_a_name_is_selected_by_its_digits(self):
        instruments = Instruments()
        instruments.select(["8"])
        batch = Resolver(instruments, "a").batch(orders((8, 0), (9, 0)))
        assert batch.is_selected.tolist() == [True, False]
        assert batch.symbols.tolist() == [None, None]


class TestFilesThatContradictEachOther:
    def test_one_id_of_two_symbols_on_a_day(self):
        instruments = Instruments()
        Resolver(instruments, "a.dbn", DATED)
        with pytest.raises(
            InputError,
            match=r"a\.dbn and b\.dbn cannot be merged: on 2024-01-02 instrument 7 is TWO in one, "
            "SIX in the other",
        ):
            Resolver(instruments, "b.dbn", metadata(Mapping("SIX", (DAY_2, DAY_4, "7"))))

    def test_one_symbol_of_two_ids_on_a_day(self):
        instruments = Instruments()
        Resolver(instruments, "a.dbn", DATED)
        with pytest.raises(InputError, match="ONE is instrument 8 in one, 9 in the other"):
            Resolver(instruments, "b.dbn", metadata(Mapping("ONE", (DAY_2, DAY_3, "9"))))

    def test_continuous_names_of_two_markets(self):
        instruments = Instruments()
        es, nq = (
            metadata(Mapping(f"{root}.c.0", (DAY_1, DAY_4, "1")), stype_in="continuous")
            for root in ("ES", "NQ")
        )
        Resolver(instruments, "a", es)
        with pytest.raises(InputError, match=r"instrument 1 is ES\.c\.0 in one, NQ\.c\.0"):
            Resolver(instruments, "b", nq)

    def test_the_file_of_the_day_is_named_among_many(self):
        instruments = Instruments()
        for day in (1, 2, 3):
            dates = dt.date(2024, 1, day), dt.date(2024, 1, day + 1)
            Resolver(instruments, f"day{day}", metadata(Mapping("ONE", (*dates, "7"))))
        with pytest.raises(InputError, match="day2 and other cannot be merged: on 2024-01-02"):
            Resolver(instruments, "other", metadata(Mapping("TWO", (DAY_2, DAY_3, "7"))))

    def test_other_days_and_the_same_again_are_no_contradiction(self):
        instruments = Instruments()
        first = Resolver(instruments, "a", DATED)
        again = Resolver(instruments, "b", DATED)
        Resolver(instruments, "c", metadata(Mapping("SIX", (DAY_3, DAY_4, "7"))))
        rows = orders((7, MIDNIGHT_2), (7, MIDNIGHT_2 + DAY))
        assert names(first, rows) == names(again, rows) == ["TWO", "SIX"]

    def test_datasets_are_kept_apart(self):
        instruments = Instruments()
        ours = Resolver(instruments, "a", DATED)
        theirs = Resolver(
            instruments, "b", metadata(Mapping("SIX", (DAY_1, DAY_4, "7")), dataset="X")
        )
        rows = orders((7, MIDNIGHT_2))
        assert names(ours, rows) == ["TWO"]
        assert names(theirs, rows) == ["SIX"]

    def test_a_united_stream_knows_the_symbols_of_each(self):
        other = metadata(Mapping("SIX", (DAY_1, DAY_4, "6")))
        united = resolver(unite([("a", DATED), ("b", other)]))
        assert names(united, orders((6, MIDNIGHT_2), (7, MIDNIGHT_2))) == ["SIX", "TWO"]


class TestLive:
    def test_a_mapping_record_holds_from_where_it_stands_on_every_day(self):
        live = resolver(DATED)
        before = live.batch(orders((7, MIDNIGHT_2)))
        live.learn(mappings((7, "LIVE"), (99, "NEW")))
        after = live.batch(orders((7, 0), (7, MIDNIGHT_2), (99, 0), (8, MIDNIGHT_2)))
        live.learn(mappings((7, "LATER")))
        assert names(live, orders((7, MIDNIGHT_2))) == ["LATER"]
        # Each is resolved by what was in force, though it is asked for only now.
        assert after.symbols.tolist() == ["LIVE", "LIVE", "NEW", "ONE"]
        assert before.symbols.tolist() == ["TWO"]

    def test_a_symbol_that_gets_another_id_is_the_same_instrument(self):
        live = resolver()
        live.learn(mappings((7, "AAPL"), (8, "MSFT")))
        first = live.batch(orders((7, 0), (8, 0))).instrument.tolist()
        live.learn(mappings((8, "AAPL"), (7, "MSFT")))
        assert live.batch(orders((8, 0), (7, 0))).instrument.tolist() == first

    def test_records_before_the_first_mapping_of_an_id_are_of_what_it_names(self):
        live = resolver()
        early = live.batch(orders((1, 0)))
        assert early.symbols.tolist() == [None]
        live.learn(mappings((1, "ESM4")))
        late = live.batch(orders((1, 0)))
        assert late.instrument.tolist() == early.instrument.tolist()
        assert late.symbols.tolist() == ["ESM4"]

    @pytest.mark.parametrize("raw", ["ESM4", ""])
    def test_every_name_of_an_id_selects_it(self, raw):
        requested = ["ES.c.0", "ES.v.0", "ES.FUT"]
        records = mapped(*((1, name, raw) for name in requested))
        for name in (*requested, *filter(None, [raw])):
            instruments = Instruments()
            instruments.select([name])
            live = Resolver(instruments, "a")
            live.learn(records)
            assert names(live, orders((1, 0))) == [name]
            assert instruments.selected.tolist() == [True]
        live = resolver()
        live.learn(records)
        assert names(live, orders((1, 0))) == [raw or "ES.c.0"]
        assert set(live.instruments[0].names) == {*requested, *filter(None, [raw])}

    def test_a_continuous_name_moves_to_the_id_that_is_mapped_later(self):
        instruments = Instruments()
        instruments.select(["ES.c.0"])
        live = Resolver(instruments, "a")
        live.learn(mapped((1, "ES.c.0", "ESM4"), (1, "ES.FUT", "ESM4"), (2, "ES.FUT", "ESU4")))
        assert live.batch(orders((1, 0), (2, 0))).is_selected.tolist() == [True, False]
        live.learn(mapped((2, "ES.c.0", "ESU4")))
        assert live.batch(orders((1, 0), (2, 0))).is_selected.tolist() == [False, True]

    def test_names_of_another_root_mean_another_instrument(self):
        live = resolver()
        live.learn(mapped((1, "ES.c.0", "")))
        first = live.batch(orders((1, 0))).instrument.tolist()
        live.learn(mapped((1, "NQ.c.0", "")))
        assert names(live, orders((1, 0))) == ["NQ.c.0"]
        assert live.batch(orders((1, 0))).instrument.tolist() != first

    def test_continuous_and_raw_names_both_select(self):
        for name in ("ES.c.0", "ESM4"):
            instruments = Instruments()
            instruments.select([name])
            live = Resolver(instruments, "a")
            live.learn(mapped((1, "ES.c.0", "ESM4")))
            batch = live.batch(orders((1, 0)))
            assert batch.is_selected.tolist() == [True]
            assert batch.symbols.tolist() == [name]
            assert instruments[0].name == "ESM4"


class TestTable:
    def test_ids_are_those_of_the_date(self):
        batch = resolver(DATED).batch(orders((8, MIDNIGHT_2), (7, MIDNIGHT_2), (5, MIDNIGHT_2)))
        one, two, unnamed = batch.instrument
        times = MIDNIGHT_2 + np.array([-9, -1, 0, 1, 7]) * DAY
        ids = batch.instruments.ids_on(
            np.repeat(np.array([one, two, unnamed]), 5), np.tile(times, 3)
        )
        assert ids.tolist() == [7, 7, 8, 8, 8, *[7] * 5, *[5] * 5]

    def test_live_ids_hold_from_their_day(self):
        live = resolver()
        live.learn(mappings((7, "AAPL")))
        index = live.batch(orders((7, 0))).instrument
        live.learn(mappings((8, "AAPL")))
        assert live.batch(orders((8, 3 * DAY))).instrument.tolist() == index.tolist()
        times = np.array([0, 2, 3, 4]) * DAY
        assert live.instruments.ids_on(np.repeat(index, 4), times).tolist() == [7, 7, 8, 8]

    def test_a_saved_table_gives_the_same_indices(self):
        first = resolver(DATED)
        rows = orders((8, MIDNIGHT_2), (7, MIDNIGHT_2), (5, MIDNIGHT_2))
        indices = first.batch(rows).instrument.tolist()
        again = Instruments()
        again.restore(first.instruments.save())
        assert Resolver(again, "a", DATED).batch(rows[::-1]).instrument.tolist() == indices[::-1]

    def test_as_many_ids_as_there_are(self):
        ids = np.random.default_rng(2).permutation(2**32 // 40_000 * np.arange(40_000))
        records = streams.mbo(len(ids))
        records["instrument_id"] = ids
        resolved = resolver()
        indices = resolved.batch(records).instrument
        assert sorted(indices.tolist()) == [*range(40_000)]
        assert np.array_equal(resolved.batch(records).instrument, indices)

    def test_room_grows_and_keeps_what_there_is(self):
        table = with_room(np.empty((0, 2), np.int64), np.array([2], np.uint32), -1)
        assert table.tolist() == [[-1, -1]] * 3
        table[2] = 5
        assert with_room(table, np.array([1], np.uint32), -1) is table
        assert with_room(table, np.array([3], np.uint32), -1)[2:].tolist() == [
            [5, 5],
            *[[-1, -1]] * 3,
        ]

    def test_indices_are_given_as_instruments_are_met_however_the_stream_is_cut(self):
        records = streams.mbo(3_000)
        records["instrument_id"] = np.random.default_rng(3).integers(0, 900, 3_000)
        whole = resolver().batch(records).instrument
        first = np.sort(np.unique(records["instrument_id"], return_index=True)[1])
        assert whole[first].tolist() == [*range(len(first))]
        resolved = resolver()
        parts = [resolved.batch(records[at : at + 7]).instrument for at in range(0, 3_000, 7)]
        assert np.array_equal(np.concatenate(parts), whole)


class TestBatch:
    def test_parts_and_trades_keep_their_instruments(self):
        batch = resolver(streams.metadata()).batch(streams.mbo(9))
        assert batch[3:5].symbols.tolist() == ["MSFT", "AAPL"]
        assert batch[batch.records["sequence"] > 6].symbols.tolist() == ["MSFT", "AAPL"]
        trades = batch.trades()
        assert trades.records["sequence"].tolist() == [0, 3, 6]
        assert trades.symbols.tolist() == ["AAPL", "MSFT", "AAPL"]

    def test_batches_are_joined(self):
        batch = resolver(streams.metadata()).batch(streams.mbo(9))
        joined = Batch.joined([batch[:4], Batch.empty(batch.records.dtype), batch[4:]])
        assert np.array_equal(joined.records, batch.records)
        assert np.array_equal(joined.instrument, batch.instrument)
