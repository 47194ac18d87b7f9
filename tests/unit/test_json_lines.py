"""Ticks from JSON lines."""

from __future__ import annotations

import time

import pytest

from mdtool.adapters.byte_source import open_bytes
from mdtool.adapters.json_lines import JsonLines, is_json_lines
from mdtool.core.errors import InputError
from mdtool.core.trades import Reason

TICK = (
    '{"symbol": "AAPL", "price": 150.25, "volume": 100, "exchange_timestamp": 1735201234567000000}'
)
TRADE = (
    '{"ts_recv":"1609160400099150057","hd":{"ts_event":"1609160400098821953","rtype":0,'
    '"publisher_id":1,"instrument_id":5482},"action":"T","side":"A","depth":0,'
    '"price":"3720250000000","size":5,"flags":129,"sequence":1170380,"symbol":"ESH1"}'
)
PRETTY = (
    '{"ts_recv":"2020-12-28T13:00:00.099150057Z","hd":{"ts_event":"2020-12-28T13:00:00.098821953Z"},'
    '"action":"T","price":"3720.250000000","size":5,"symbol":"ESH1"}'
)


def source(tmp_path, text, is_strict=False):
    path = tmp_path / "ticks.json"
    path.write_text(text, "utf-8")
    return JsonLines(open_bytes(str(path)), is_strict)


def read(tmp_path, text):
    ticks = source(tmp_path, text)
    rows = []
    for run in ticks:
        trades = run.trades
        columns = (trades.price, trades.size, trades.ts_event, trades.ts_recv)
        for k, symbol in enumerate(trades.symbol):
            rows.append((run.symbols[symbol], *(int(column[k]) for column in columns)))
    ticks.close()
    return rows


def test_a_tick_a_line(tmp_path):
    assert read(tmp_path, f"{TICK}\n\n{TICK.replace('AAPL', ' msft ')}") == [
        ("AAPL", 150_250_000_000, 100, 1735201234567000000, 1735201234567000000),
        ("MSFT", 150_250_000_000, 100, 1735201234567000000, 1735201234567000000),
    ]


def test_whole_numbers_may_be_written_as_doubles(tmp_path):
    volumes = ("1.0", "100.00", "2e3", '"7.0"', "9223372036854775807.0")
    lines = [TICK.replace("100,", f"{volume},") for volume in volumes]
    assert [row[2] for row in read(tmp_path, "\n".join(lines))] == [1, 100, 2_000, 7, 2**63 - 1]
    assert read(tmp_path, TRADE.replace('"size":5', '"size":5.0'))[0][2] == 5
    (row,) = read(tmp_path, TICK.replace("1735201234567000000", "1.735201234567e18"))
    assert row[3] == 1735201234567000000


def test_files_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "ticks.json"
    path.write_text(TICK, "utf-8-sig")
    opened = open_bytes(str(path))
    assert is_json_lines(opened)
    opened.close()
    mark = "\ufeff"
    assert len(read(tmp_path, f"{mark}\n{TICK}\n{mark}{TICK}\n{mark}")) == 2


def test_prices_are_exact_whatever_their_form(tmp_path):
    lines = [TICK.replace("150.25", price) for price in ("0.1", "1e2", "7", '"0.000000001"')]
    prices = [row[1] for row in read(tmp_path, "\n".join(lines))]
    assert prices == [100_000_000, 100_000_000_000, 7_000_000_000, 1]


def test_a_double_s_last_digits_are_rounded_as_an_ingest_server_does(tmp_path):
    prices = ("0.30000000000000004", "150.10000000000002", '"99.9999999996"')
    lines = "\n".join(TICK.replace("150.25", price) for price in prices)
    assert [row[1] for row in read(tmp_path, lines)] == [
        300_000_000,
        150_100_000_000,
        100_000_000_000,
    ]


def test_a_tick_as_protobuf_writes_it(tmp_path):
    line = '{"symbol":"AAPL","price":1,"volume":"100","exchangeTimestamp":"1735201234567000000"}'
    assert read(tmp_path, line)[0][2:4] == (100, 1735201234567000000)


def test_a_time_may_be_iso(tmp_path):
    line = TICK.replace("1735201234567000000", '"2024-12-26T08:20:34.567Z"')
    assert read(tmp_path, line)[0][3] == 1735201234567000000


@pytest.mark.parametrize(
    "moment", ["", ',"exchange_timestamp":null', ',"exchange_timestamp":"","exchangeTimestamp":""']
)
def test_a_tick_without_a_time_is_of_now(tmp_path, moment):
    before = time.time_ns()
    (row,) = read(tmp_path, f'{{"symbol":"AAPL","price":1,"volume":1{moment}}}')
    assert before <= row[3] <= time.time_ns()


@pytest.mark.parametrize("line", [TRADE, PRETTY])
def test_a_trade_as_mdtool_writes_it(tmp_path, line):
    assert read(tmp_path, line) == [
        ("ESH1", 3720_250_000_000, 5, 1609160400098821953, 1609160400099150057)
    ]


def test_records_that_are_no_trades_are_passed_over(tmp_path):
    assert read(tmp_path, TRADE.replace('"T"', '"A"')) == []


@pytest.mark.parametrize(
    "line",
    [
        TRADE.replace("3720250000000", "9223372036854775807"),
        TRADE.replace("3720250000000", "-5"),
        PRETTY.replace('"3720.250000000"', "null"),
        TRADE.replace('"size":5', '"size":0'),
        TRADE.replace('"size":5', '"size":4294967295'),
    ],
)
def test_trades_without_a_price_or_size_are_left_out_and_counted(tmp_path, line):
    ticks = source(tmp_path, line)
    assert list(ticks) == []
    assert ticks.left_out == 1
    ticks.close()


@pytest.mark.parametrize(
    ("line", "reason", "what"),
    [
        ("{", Reason.MALFORMED, "is not JSON"),
        ("\xff", Reason.MALFORMED, "is not JSON"),
        ("[1]", Reason.MALFORMED, "is not a JSON object"),
        ('{"a":' + "[" * 60_000, Reason.MALFORMED, "is not JSON"),
        ('{"symbol": "A", "price": 1}', Reason.VOLUME, "has no 'volume'"),
        (TICK.replace("150.25", "NaN"), Reason.PRICE, "'NaN' is not a price"),
        (TICK.replace("150.25", "-1.5"), Reason.PRICE, "price -1.5 is not above 0"),
        (TICK.replace("150.25", "1e300"), Reason.PRICE, "does not fit a price"),
        (TICK.replace("100,", "0,"), Reason.VOLUME, "volume 0 is not above 0"),
        (TICK.replace("100,", "1.5,"), Reason.VOLUME, "volume '1.5' is not a whole number"),
        (TICK.replace("100,", f"{2**63},"), Reason.VOLUME, "too large"),
        (TICK.replace("100,", f"{2**63}.0,"), Reason.VOLUME, "too large"),
        (
            TICK.replace("100,", "1e999999999,"),
            Reason.VOLUME,
            "volume '1e999999999' is not a whole number",
        ),
        (TICK.replace("100,", "NaN,"), Reason.VOLUME, "volume 'NaN' is not a whole number"),
        (TICK.replace("100,", "true,"), Reason.VOLUME, "volume True is not a whole number"),
        (TICK.replace("AAPL", " "), Reason.SYMBOL, "is not 1 to 70 ASCII characters"),
        (TICK.replace("AAPL", "A" * 71), Reason.SYMBOL, "is not 1 to 70 ASCII characters"),
        (TICK.replace("AAPL", "Ä"), Reason.SYMBOL, "is not 1 to 70 ASCII characters"),
        (TICK.replace('"AAPL"', "5"), Reason.SYMBOL, "is not 1 to 70 ASCII characters"),
        (TICK.replace("1735201234567000000", '"yesterday"'), Reason.TIMESTAMP, "is not a time"),
        (TICK.replace("1735201234567000000", "0"), Reason.TIMESTAMP, "time 0 is not above 0"),
        (TRADE.replace('"symbol":"ESH1"', '"x":0'), Reason.SYMBOL, "has no 'symbol'"),
        (TRADE.replace('"hd":{', '"hd":3,"x":{'), Reason.TIMESTAMP, "has no 'ts_event'"),
    ],
)
def test_a_line_that_is_not_a_tick_is_refused(tmp_path, line, reason, what, caplog):
    ticks = source(tmp_path, f"{TICK}\n{TICK}\n{line}\n{TICK}")
    assert sum(len(run) for run in ticks) == 3
    assert {Reason(index): n for index, n in enumerate(ticks.refused) if n} == {reason: 1}
    first, last = caplog.messages
    assert "ticks.json: refused line 3: " in first
    assert what in first
    assert last.endswith(f"ticks.json: refused 1 line (1 {reason.label})")
    ticks.close()

    ticks = source(tmp_path, f"{TICK}\n{TICK}\n{line}\n{TICK}", is_strict=True)
    count = 0
    with pytest.raises(InputError, match=r"ticks\.json: line 3: ") as raised:  # noqa: PT012
        for run in ticks:
            count += len(run)
    assert what in str(raised.value)
    assert count == 2
    ticks.close()


@pytest.mark.parametrize("is_strict", [False, True])
def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path, is_strict):
    ticks = source(tmp_path, f"{TICK}\n" + "{" + "x" * 600_000 + f"\n{TICK}\n{{", is_strict)
    runs = iter(ticks)
    assert len(next(runs)) == 1
    if is_strict:
        with pytest.raises(InputError, match=r"line 2: is longer than 65,536 bytes"):
            next(runs)
    else:
        assert sum(len(run) for run in runs) == 1
        assert ticks.refused[Reason.MALFORMED] == 2
    ticks.close()


def test_lines_are_logged_by_their_own_numbers(tmp_path, caplog):
    long = "x" * 600_000
    ticks = source(tmp_path, f"{TICK}\n{long}\n{TICK}\nx\n{TICK}")
    assert sum(len(run) for run in ticks) == 3
    assert [message.split(": ")[1] for message in caplog.messages[:2]] == [
        "refused line 2",
        "refused line 4",
    ]
    ticks.close()


def test_a_file_without_any_tick_is_an_error(tmp_path):
    ticks = source(tmp_path, '{"symbol":"AAPL"}\n' * 9 + "x")
    with pytest.raises(
        InputError, match=r"refused 10 lines \(9 price, 1 malformed\), and accepted"
    ):
        list(ticks)
    ticks.close()


def test_json_is_recognised_by_its_first_character(tmp_path):
    for text, expected in ((f"\n  {TICK}", True), ("DBN\x03", False), ("", False)):
        path = tmp_path / "f"
        path.write_text(text)
        opened = open_bytes(str(path))
        assert is_json_lines(opened) is expected
        assert opened.read(1 << 16) == text.encode()
        opened.close()
