"""What symbols stand for in sessions of the live gateway."""

from __future__ import annotations

import numpy as np
import pytest

from mdtool.wire.dbn_records import DTYPES, RTYPE_DEFINITION
from tests.support.dbn_files import DAY, MAY_1, header, mapping, trade, write
from tests.support.live_clients import controlled, gateway, session, texts, wants


class TestSymbols:
    async def test_every_stype_that_the_header_resolves(self, tmp_path):
        rolls = header({"ES.c.0": {1: 1, 2: 2}}, stype_in="continuous")
        records = [
            trade(number, MAY_1 + day * DAY + 1, 10, 1) for day in (0, 1) for number in (1, 2)
        ]
        path = write(tmp_path / "rolls.dbn", rolls, *records)
        async with gateway(path) as address:
            continuous = await session(address, wants("ES.c.0", stype_in="continuous"))
            by_id = await session(address, wants("2", stype_in="instrument_id"))
            wrong = await session(address, wants("ES.c.0", stype_in="parent"))
        # The front contract is another one on the second day, which is told before its records.
        assert texts(continuous)[2:] == [
            "ES.c.0 = ES.c.0 1",
            "TradeMsg 1 1",
            "ES.c.0 = ES.c.0 2",
            "TradeMsg 2 1",
        ]
        assert texts(by_id)[2:] == ["2 = ES.c.0 2", "TradeMsg 2 1"]
        assert texts(wrong)[2:] == ["error 4: Failed to resolve symbol: ES.c.0"]

    async def test_a_symbol_of_another_day_has_no_error(self, tmp_path):
        names = header({"OLD": {1: 1}, "NEW": {2: 2}})
        records = [trade(number, MAY_1 + (number - 1) * DAY, 10, 1) for number in (1, 2)]
        path = write(tmp_path / "days.dbn", names, *records)
        none = "error 4: Failed to resolve symbol: NONE"
        mapped = "NEW = NEW 2"
        for from_ns, expected in {
            MAY_1: ["OLD = OLD 1", none, "TradeMsg 1 0", mapped, "TradeMsg 2 0"],
            MAY_1 + DAY: [mapped, none, "TradeMsg 2 0"],
            MAY_1 + 9 * DAY: [mapped, none],  # behind the last day
        }.items():
            async with controlled(path, from_ns=from_ns) as (address, _):
                received = await session(address, wants("OLD", "NEW", "NONE"))
            assert texts(received)[2:] == expected

    async def test_a_closed_market_has_the_symbols_of_its_next_day(self, tmp_path):
        names = header({"AAPL": {1: 1, 4: 2}})
        records = [trade(1, MAY_1, 10, 1), trade(2, MAY_1 + 3 * DAY, 11, 1)]
        path = write(tmp_path / "weekend.dbn", names, *records)
        for from_day, expected in {
            1: ["AAPL = AAPL 2", "TradeMsg 2 0"],
            9: ["AAPL = AAPL 2"],  # behind the last day
        }.items():
            async with controlled(path, from_ns=MAY_1 + from_day * DAY) as (address, _):
                assert texts(await session(address, wants("AAPL")))[2:] == expected

    async def test_a_capture_maps_symbols_as_it_goes(self, tmp_path):
        path = write(
            tmp_path / "capture.dbn",
            header({}, None),
            mapping(7, "AAPL", MAY_1),
            trade(7, MAY_1 + 1, 10, 1),
            mapping(7, "MSFT", MAY_1 + 2),
            trade(7, MAY_1 + 3, 10, 1),
            mapping(8, "AAPL", MAY_1 + 4),
            trade(8, MAY_1 + 5, 10, 1),
        )
        async with gateway(path) as address:
            received = await session(address, wants("AAPL"))
        assert texts(received)[2:] == [
            "AAPL = AAPL 7",
            "TradeMsg 7 1",
            "AAPL = AAPL 8",
            "TradeMsg 8 5",
        ]

    async def test_3950_symbols_in_8_chunks(self, tmp_path):
        names = {f"S{number}": {1: number} for number in range(3_950)}
        path = write(tmp_path / "many.dbn", header(names), trade(3_949, MAY_1 + 1, 10, 1))
        async with gateway(path) as address:
            received = await session(address, wants(*names, id=1))
        assert len(received) == 2 + 3_950 + 1

    async def test_two_instruments_with_one_name(self, tmp_path):
        """One name, at two ids and at two publishers of one id: a session gets all of them."""
        names = header({"AAPL": {1: 1}})
        both = write(tmp_path / "one.dbn", names, trade(1, MAY_1 + 1, 10, 1, publisher_id=2))
        write(tmp_path / "two.dbn", names, trade(1, MAY_1 + 2, 11, 1, publisher_id=3))
        async with gateway(both, tmp_path / "two.dbn") as address:
            received = await session(address, wants("AAPL"))
        assert texts(received)[2:] == ["AAPL = AAPL 1", "TradeMsg 1 1", "TradeMsg 1 2"]
        capture = write(
            tmp_path / "capture.dbn",
            header({}, None),
            mapping(7, "AAPL", MAY_1),
            mapping(8, "AAPL", MAY_1),
            trade(7, MAY_1 + 1, 10, 1),
            trade(8, MAY_1 + 2, 10, 1),
        )
        async with gateway(capture) as address:
            received = await session(address, wants("AAPL"))
        assert sorted(texts(received)[2:]) == [
            "AAPL = AAPL 7",
            "AAPL = AAPL 8",
            "TradeMsg 7 1",
            "TradeMsg 8 2",
        ]


def definition(instrument_id: int, raw_symbol: str, day: int, kind: str = "F", **fields) -> bytes:
    ts = MAY_1 + day * DAY
    record = np.zeros(1, DTYPES[RTYPE_DEFINITION])
    record["rtype"], record["length"] = RTYPE_DEFINITION, record.dtype.itemsize // 4
    record["instrument_id"], record["publisher_id"] = instrument_id, 1
    record["ts_event"] = record["ts_recv"] = ts
    record["raw_symbol"], record["instrument_class"] = raw_symbol.encode(), kind.encode()
    for name, value in fields.items():
        record[name] = value
    return record.tobytes()


class TestDefinitions:
    @pytest.fixture
    def futures(self, tmp_path):
        """Two futures of ES, an option, and trades of them on two days: ESM4 expires between."""
        june, july = MAY_1 + DAY, MAY_1 + 30 * DAY
        defined = [
            definition(number, name, day, kind, asset=b"ES", expiration=expiration)
            for day in (0, 1)
            for number, name, kind, expiration in [
                (1, "ESM4", "F", june),
                (2, "ESU4", "F", july),
                (3, "ESM4 C5000", "C", june),
            ]
        ]
        trades = [
            trade(number, MAY_1 + day * DAY + number, 10, 1)
            for day in (0, 1)
            for number in (1, 2, 3)
        ]
        return (
            write(tmp_path / "definition.dbn", header({}, "definition"), *defined),
            write(tmp_path / "trades.dbn", header({}), *trades),
        )

    @pytest.mark.parametrize(
        ("stype_in", "symbol", "expected"),
        [
            ("raw_symbol", "ESU4", ["ESU4 = ESU4 2", "TradeMsg 2 2", "TradeMsg 2 2"]),
            ("raw_symbol", "ESZ4", ["error 4: Failed to resolve symbol: ESZ4"]),
            ("instrument_id", "3", ["3 = ESM4 C5000 3", "TradeMsg 3 3", "TradeMsg 3 3"]),
            ("parent", "ES.OPT", ["ES.OPT = ESM4 C5000 3", "TradeMsg 3 3", "TradeMsg 3 3"]),
            (
                "parent",
                "ES.FUT",
                ["ES.FUT = ESM4 1", "ES.FUT = ESU4 2", *["TradeMsg 1 1", "TradeMsg 2 2"] * 2],
            ),
            (
                "continuous",
                "ES.c.0",
                ["ES.c.0 = ESM4 1", "TradeMsg 1 1", "ES.c.0 = ESU4 2", "TradeMsg 2 2"],
            ),
            ("continuous", "ES.v.0", ["error 4: Failed to resolve symbol: ES.v.0"]),
        ],
    )
    async def test_what_they_resolve(self, futures, stype_in, symbol, expected):
        async with gateway(*futures) as address:
            received = await session(address, wants(symbol, stype_in=stype_in))
        assert texts(received)[2:] == expected

    async def test_they_are_served_themselves(self, futures):
        async with gateway(*futures) as address:
            received = await session(address, wants("ESM4", schema="definition"))
        assert texts(received)[3:] == ["InstrumentDefMsg 1 0"] * 2
