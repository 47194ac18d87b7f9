"""What commands make of ids that change their meaning, of several names, and of live mappings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mdtool.wire.dbn import DbnDecoder
from tests.support.commands import completed, output_of
from tests.support.dbn_files import DAY, HOUR, MAY_1, header, mapping, order, trade, write

NOON = MAY_1 + 12 * HOUR
NEXT_NOON = NOON + DAY
SWAPPED = {"AAPL": {1: 7, 2: 8}, "MSFT": {1: 9, 2: 7}}
"""7 is AAPL on one day and MSFT on the next."""


def lines(*arguments: object, stdin: bytes = b"") -> list[dict]:
    return [
        json.loads(line) for line in output_of(*arguments, "-J", "-s", stdin=stdin).splitlines()
    ]


def labelled(rows: list[dict], *fields: str) -> list[tuple]:
    return [(row["symbol"], *(int(row[field]) for field in fields)) for row in rows]


@pytest.fixture
def swapped(tmp_path) -> Path:
    return write(
        tmp_path / "swapped.dbn",
        header(SWAPPED),
        trade(7, NOON, 170, 10),
        trade(7, NOON + HOUR, 172, 20),
        trade(9, NOON + HOUR + 1, 390, 5),
        trade(7, NEXT_NOON, 400, 10),
        trade(8, NEXT_NOON + 1, 174, 10),
    )


class TestIdsThatChange:
    def test_a_vwap_follows_the_symbol(self, swapped):
        rows = labelled(lines("vwap", swapped, "--window", 3), "price", "quantity")
        assert rows == [
            ("AAPL", 170 * 10**9, 10),
            ("AAPL", 171_333_333_333, 30),
            ("MSFT", 390 * 10**9, 5),
            ("MSFT", 396_666_666_667, 15),
            ("AAPL", 172 * 10**9, 40),
        ]

    def test_so_do_bars_by_size_under_an_id_of_their_own_day(self, swapped):
        rows = lines("aggregate", swapped, "--by", "volume=100")
        assert labelled(rows, "open", "close", "volume") == [
            ("AAPL", 170 * 10**9, 174 * 10**9, 40),
            ("MSFT", 390 * 10**9, 400 * 10**9, 15),
        ]
        assert [row["hd"]["instrument_id"] for row in rows] == [7, 9]

    def test_what_is_filled_in_has_the_symbol_s_own_close_and_the_id_of_its_day(self, swapped):
        rows = lines("aggregate", swapped, "--interval", "12h", "--fill", "prev")
        by_symbol = {
            name: [
                (row["hd"]["instrument_id"], int(row["close"]) // 10**9)
                for row in rows
                if row["symbol"] == name
            ]
            for name in ("AAPL", "MSFT")
        }
        assert by_symbol == {
            "AAPL": [(7, 172), (8, 172), (8, 174)],
            "MSFT": [(9, 390), (7, 390), (7, 400)],
        }

    def test_bars_as_dbn_are_read_back_under_the_same_names(self, swapped):
        bars = output_of("aggregate", swapped, "--interval", "1d", "--fill", "prev")
        rows = labelled(lines("replay-dbn", "-", stdin=bars), "volume")
        assert sorted(rows) == [("AAPL", 10), ("AAPL", 30), ("MSFT", 5), ("MSFT", 10)]

    def test_a_selection_is_of_the_symbol_on_both_days(self, swapped):
        rows = lines("replay-dbn", swapped, "--symbols", "AAPL")
        assert [row["hd"]["instrument_id"] for row in rows] == [7, 7, 8]

    def test_days_in_files_of_their_own_are_the_same(self, tmp_path):
        first = write(tmp_path / "1", header({"AAPL": {1: 7}}), trade(7, NOON, 170, 10))
        second = write(
            tmp_path / "2",
            header({"AAPL": {2: 8}, "MSFT": {2: 7}}),
            trade(7, NEXT_NOON, 400, 10),
            trade(8, NEXT_NOON, 174, 10),
        )
        rows = labelled(lines("vwap", first, second, "--window", 9), "price", "quantity")
        assert rows == [
            ("AAPL", 170 * 10**9, 10),
            ("MSFT", 400 * 10**9, 10),
            ("AAPL", 172 * 10**9, 20),
        ]

    def test_a_day_without_a_name_is_no_part_of_its_neighbours(self, tmp_path):
        gap = write(
            tmp_path / "gap.dbn",
            header({"ESM4": {1: 1, 3: 1}}),
            *(trade(1, NOON + day * DAY, 5_000 + day, 3 + day) for day in range(3)),
        )
        rows = labelled(lines("aggregate", gap, "--by", "volume=100"), "volume")
        assert sorted(rows, key=str) == [("ESM4", 8), (None, 4)]
        rows = labelled(lines("vwap", gap, "--window", 9), "quantity")
        assert rows == [("ESM4", 3), (None, 4), ("ESM4", 8)]

    def test_the_day_is_that_of_ts_recv(self, tmp_path):
        records = np.frombuffer(trade(7, NOON, 170, 1), np.uint8).copy()
        late = trade(7, MAY_1 + DAY, 400, 2)
        # Happened before midnight, was received after it.
        late = late[:8] + (MAY_1 + DAY - 1).to_bytes(8, "little") + late[16:]
        path = write(tmp_path / "f", header(SWAPPED), records.tobytes(), late)
        rows = lines("aggregate", path, "--interval", "1d", "--clock", "ts_event")
        assert labelled(rows, "volume") == [("AAPL", 1), ("MSFT", 2)]

    def test_bars_may_be_the_input(self, tmp_path, swapped):
        bars = tmp_path / "bars.dbn"
        output_of("aggregate", swapped, "--interval", "1h", "-o", bars)
        rows = labelled(lines("replay-dbn", bars, "--symbols", "MSFT"), "volume")
        assert rows == [("MSFT", 5), ("MSFT", 10)]

    def test_books_of_one_id_on_two_days_are_two(self, tmp_path):
        path = write(
            tmp_path / "mbo.dbn",
            header(SWAPPED, "mbo"),
            order(7, NOON, "R"),
            order(7, NOON + 1, "A", "B", 170, 1, order_id=1),
            order(7, NEXT_NOON, "R"),
            order(7, NEXT_NOON + 1, "A", "A", 400, 2, order_id=1),
        )
        books = [json.loads(line) for line in output_of("book", path, "--json").splitlines()]
        assert [(book["symbol"], book["stats"]["total_orders"]) for book in books] == [
            ("AAPL", 1),
            ("MSFT", 1),
        ]
        found = json.loads(output_of("book", "verify", path, "--json"))
        assert (found["books"], found["findings"]) == (2, [])

    def test_a_book_of_midnight_is_called_what_it_was_before(self, tmp_path):
        last_minute = MAY_1 + DAY - 30 * 10**9
        path = write(
            tmp_path / "mbo.dbn",
            header({"AAPL": {1: 7}, "MSFT": {2: 7}}, "mbo"),
            order(7, last_minute - HOUR, "R"),
            order(7, last_minute, "A", "B", 170, 1, order_id=1),
        )
        rows = lines("book", path, "--emit", "1m")
        assert [row["symbol"] for row in rows] == ["AAPL", "AAPL"]
        csv = output_of("book", path, "--emit", "1m", "-C", "-s").splitlines()
        assert [row.rsplit(b",", 1)[1] for row in csv[1:]] == [b"AAPL", b"AAPL"]

    def test_a_book_goes_on_under_the_next_id(self, tmp_path):
        path = write(
            tmp_path / "mbo.dbn",
            header({"AAPL": {1: 7, 2: 8}}, "mbo"),
            order(7, NOON, "R"),
            order(7, NOON + 1, "A", "B", 170, 1, order_id=1),
            order(8, NEXT_NOON, "A", "B", 169, 2, order_id=2),
        )
        [book] = [json.loads(line) for line in output_of("book", path, "--json").splitlines()]
        assert (book["symbol"], book["stats"]["total_orders"]) == ("AAPL", 2)
        for _ in range(2):  # the second time from a checkpoint
            at = ("--at", NEXT_NOON)
            [again] = output_of("book", path, "--json", *at).splitlines()
            assert json.loads(again)["levels"] == book["levels"]
            output_of("book", path, "--checkpoint-every", 2, "--json")


class TestSeveralNames:
    @pytest.fixture
    def two_names(self, tmp_path) -> Path:
        days = dict.fromkeys(range(1, 4), 1)
        metadata = header({"ES.c.0": days, "ES.v.0": days}, stype_in="continuous")
        trades = trade(1, NOON, 5_000, 3), trade(1, NOON + 1, 5_001, 4)
        return write(tmp_path / "names.dbn", metadata, *trades)

    @pytest.mark.parametrize("name", ["ES.c.0", "ES.v.0"])
    def test_each_selects(self, two_names, name):
        rows = labelled(lines("replay-dbn", two_names, "--symbols", name), "size")
        assert rows == [(name, 3), (name, 4)]
        assert labelled(lines("aggregate", two_names, "--symbols", name), "volume") == [(name, 7)]

    def test_without_a_selection_the_first_is_shown(self, two_names):
        assert labelled(lines("aggregate", two_names), "volume") == [("ES.c.0", 7)]

    def test_a_name_that_ends_earlier_splits_no_instrument(self, tmp_path):
        names = header({"ES.c.0": {1: 1}, "ES.v.0": {1: 1, 2: 1}}, stype_in="continuous")
        path = write(
            tmp_path / "roll.dbn", names, trade(1, NOON, 5000, 1), trade(1, NEXT_NOON, 5001, 3)
        )
        rows = labelled(lines("vwap", path, "--window", 2), "price")
        assert rows == [("ES.v.0", 5000 * 10**9), ("ES.v.0", 5_000_750_000_000)]

    def test_an_instrument_selected_by_two_names_is_labelled_by_its_raw_symbol(self, tmp_path):
        continuous = header({"ES.c.0": {1: 1, 2: 2}}, stype_in="continuous")
        raw = header({"ESM4": {1: 1, 2: 1}})
        rolls = write(tmp_path / "rolls.dbn", continuous, trade(1, NOON, 5000, 1))
        stays = write(tmp_path / "stays.dbn", raw, trade(1, NEXT_NOON, 5001, 3))
        selected = "ES.c.0,ESM4"
        rows = labelled(lines("vwap", rolls, stays, "--symbols", selected, "--window", 2), "price")
        assert rows == [("ESM4", 5000 * 10**9), ("ESM4", 5_000_750_000_000)]

    def test_one_that_is_not_there_is_named(self, two_names):
        said = completed("replay-dbn", two_names, "--symbols", "NQ.c.0", "-J").stderr.decode()
        assert "no records of NQ.c.0; there are ES.c.0" in said

    def test_a_raw_symbol_of_another_file_goes_first(self, tmp_path, two_names):
        raw = write(tmp_path / "raw", header({"ESM4": {1: 1}}), trade(1, NOON + 2, 5_002, 5))
        rows = labelled(lines("aggregate", two_names, raw), "volume")
        assert rows == [("ESM4", 12)]
        rows = labelled(lines("aggregate", two_names, raw, "--symbols", "ES.v.0"), "volume")
        assert rows == [("ES.v.0", 12)]

    def test_merged_continuous_files_stay_continuous_and_contracts_apart(self, tmp_path):
        files = [
            write(
                tmp_path / f"c{day}",
                header({"ES.c.0": {day: day}}, stype_in="continuous"),
                trade(day, NOON + (day - 1) * DAY, day, 1),
            )
            for day in (1, 2)
        ]
        merged = DbnDecoder()
        merged.feed(output_of("replay-dbn", *files))
        assert merged.metadata is not None
        assert str(merged.metadata.stype_in) == "continuous"
        rows = labelled(lines("vwap", *files, "--window", 9), "price")
        assert rows == [("ES.c.0", 10**9), ("ES.c.0", 2 * 10**9)]

    def test_a_parent_selects_its_children(self, tmp_path):
        path = write(
            tmp_path / "parent",
            header({"ES.FUT": {1: 1}, "ESM4": {1: 1}, "ESU4": {1: 2}}, stype_in="parent"),
            trade(1, NOON, 1, 1),
            trade(2, NOON + 1, 2, 2),
        )
        assert labelled(lines("replay-dbn", path), "size") == [("ESM4", 1), ("ESU4", 2)]
        rows = labelled(lines("replay-dbn", path, "--symbols", "ES.FUT"), "size")
        assert rows == [("ES.FUT", 1)]


class TestFilesTogether:
    def test_those_that_contradict_each_other_are_rejected_by_name(self, tmp_path):
        one = write(tmp_path / "one", header({"AAPL": {1: 7}}), trade(7, NOON, 1, 1))
        two = write(tmp_path / "two", header({"MSFT": {1: 7}}), trade(7, NOON, 2, 1))
        for command in (
            ["replay-dbn"],
            ["aggregate"],
            ["store", "--store", f"sqlite:///{tmp_path}/s"],
        ):
            name, *options = command
            ended = completed(name, one, two, *options)
            assert ended.returncode == 1
            said = ended.stderr.decode()
            assert f"{one} and {two} cannot be merged: on 2024-05-01 instrument 7 is AAPL" in said

    def test_a_header_without_a_start_is_merged_all_the_same(self, tmp_path):
        files = [
            write(
                tmp_path / name,
                header({"ESM4": {1: 1}}, start=start),
                *(trade(1, NOON + second, second, 1) for second in seconds),
            )
            for name, start, seconds in (("a", MAY_1, (10, 30)), ("b", 2**64 - 1, (20, 40)))
        ]
        rows = labelled(lines("replay-dbn", *files), "price")
        assert [price // 10**9 for _, price in rows] == [10, 20, 30, 40]

    def test_publishers_of_a_symbol_are_told_apart(self, tmp_path):
        path = write(
            tmp_path / "f",
            header({"AAPL": {1: 38}}),
            trade(38, NOON, 170, 5, publisher_id=39),
            trade(38, NOON + 1, 171, 6, publisher_id=40),
        )
        rows = lines("aggregate", path)
        assert [row["hd"]["publisher_id"] for row in rows] == [39, 40]
        assert labelled(rows, "volume") == [("AAPL", 5), ("AAPL", 6)]
        rows = labelled(lines("aggregate", path, "--consolidate"), "high", "volume")
        assert rows == [("AAPL", 171 * 10**9, 11)]
        rows = lines("vwap", path, "--window", 9, "--consolidate")
        assert labelled(rows, "quantity") == [("AAPL", 5), ("AAPL", 11)]

    def test_so_are_their_books(self, tmp_path):
        path = write(
            tmp_path / "mbo",
            header({"AAPL": {1: 38}}, "mbo"),
            order(38, NOON, "A", "B", 170, 5, order_id=1, publisher_id=39),
            order(38, NOON, "A", "A", 171, 5, order_id=1, publisher_id=40),
        )
        books = [json.loads(line) for line in output_of("book", path, "--json").splitlines()]
        assert [(book["symbol"], book["publisher_id"]) for book in books] == [
            ("AAPL", 39),
            ("AAPL", 40),
        ]


class TestLive:
    EMPTY = header({}, schema=None)

    def test_a_trade_before_the_mapping_of_its_id_is_of_the_same_instrument(self, tmp_path):
        early = write(
            tmp_path / "f",
            self.EMPTY,
            trade(1, NOON, 1, 1),
            mapping(1, "ESM4"),
            trade(1, NOON, 2, 2),
        )
        rows = [row for row in lines("vwap", early, "--window", 9) if "quantity" in row]
        assert labelled(rows, "quantity") == [(None, 1), ("ESM4", 3)]
        rows = [row for row in lines("aggregate", early) if "volume" in row]
        assert labelled(rows, "volume") == [("ESM4", 3)]

    @pytest.fixture
    def remapped(self, tmp_path) -> Path:
        return write(
            tmp_path / "live.dbn",
            self.EMPTY,
            mapping(7, "AAPL", NOON),
            trade(7, NOON, 170, 1),
            mapping(7, "MSFT", NOON + 1),
            trade(7, NOON + 2, 400, 2),
            mapping(8, "AAPL", NOON + 3),
            trade(8, NOON + 4, 172, 3),
        )

    def test_an_id_that_is_mapped_anew_is_another_instrument(self, remapped):
        rows = [row for row in lines("aggregate", remapped) if "volume" in row]
        assert sorted(labelled(rows, "volume")) == [("AAPL", 4), ("MSFT", 2)]
        rows = [row for row in lines("vwap", remapped, "--window", 9) if "quantity" in row]
        assert labelled(rows, "price", "quantity") == [
            ("AAPL", 170 * 10**9, 1),
            ("MSFT", 400 * 10**9, 2),
            ("AAPL", 171_500_000_000, 4),
        ]

    def test_what_is_made_of_it_is_read_back_under_the_same_names(self, remapped):
        bars = output_of("aggregate", remapped)
        rows = [row for row in lines("replay-dbn", "-", stdin=bars) if "volume" in row]
        assert sorted(labelled(rows, "volume")) == [("AAPL", 4), ("MSFT", 2)]

    def test_so_are_snapshots_of_its_books(self, tmp_path):
        path = write(
            tmp_path / "live.dbn",
            self.EMPTY,
            mapping(7, "AAPL", NOON),
            order(7, NOON, "A", "B", 170, 1, order_id=1),
            mapping(7, "MSFT", NOON + 1),
            order(7, NOON + 2, "A", "A", 400, 2, order_id=2),
        )
        books = [json.loads(line) for line in output_of("book", path, "--json").splitlines()]
        assert [(book["symbol"], book["stats"]["total_orders"]) for book in books] == [
            ("AAPL", 1),
            ("MSFT", 1),
        ]
        written = tmp_path / "snapshots.dbn"
        output_of("book", path, "--emit", "1s", "-o", written, said="partial")
        rows = [row for row in lines("replay-dbn", written) if "levels" in row]
        assert [row["symbol"] for row in rows] == ["AAPL", "MSFT"]

    def test_captures_that_map_one_id_differently_are_told_apart(self, tmp_path):
        files = [
            write(
                tmp_path / name,
                self.EMPTY,
                mapping(7, name, NOON),
                trade(7, NOON + at, price, 1),
                trade(7, NOON + at + 10, price, 1),
            )
            for name, at, price in (("AAPL", 1, 170), ("MSFT", 2, 400))
        ]
        rows = [row for row in lines("aggregate", *files) if "volume" in row]
        assert sorted(labelled(rows, "open", "volume")) == [
            ("AAPL", 170 * 10**9, 2),
            ("MSFT", 400 * 10**9, 2),
        ]
        merged = output_of("replay-dbn", *files)
        rows = [row for row in lines("replay-dbn", "-", stdin=merged) if "price" in row]
        assert [(row["symbol"], int(row["price"]) // 10**9) for row in rows] == [
            ("AAPL", 170),
            ("MSFT", 400),
            ("AAPL", 170),
            ("MSFT", 400),
        ]
