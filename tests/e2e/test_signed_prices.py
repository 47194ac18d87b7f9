"""Prices of 0 and below, as spreads and oil have had, through every path of trades."""

from __future__ import annotations

import csv
import json

import pytest
from databento_dbn import UNDEF_PRICE

from mdtool.adapters.stores import open_history
from tests.support.aggregator_state import Watch
from tests.support.commands import completed
from tests.support.dbn_files import MAY_1, header, trade, write
from tests.support.services import service

SECOND = 10**9
OIL = [(500_000_000, 2), (-37_630_000_000, 3), (0, 5), (-40_320_000_000, 7)]
SPREAD = (-52_050_000_000, 4)


@pytest.fixture
def signed(tmp_path):
    """Trades of CLK0 and of a spread, one without a price, one without a size."""
    rows = [*OIL, (UNDEF_PRICE, 9), (SECOND, 0)]
    records = [
        trade(1, MAY_1 + n * SECOND, price, size, unit=1)
        for n, (price, size) in enumerate(rows, start=1)
    ]
    records.append(trade(2, MAY_1 + 7 * SECOND, *SPREAD, unit=1))
    names = {"CLK0": {1: 1}, "ESM4-ESU4": {1: 2}}
    return write(tmp_path / "signed.dbn", header(names), *records)


def rows(*arguments):
    done = completed(*arguments, "-C", "-s")
    assert b"left out 2 trades without a price, size or time" in done.stderr
    return list(csv.DictReader(done.stdout.decode().splitlines()))


def test_they_make_bars(signed):
    oil, spread = rows("aggregate", signed)
    shown = [int(oil[name]) for name in ("open", "high", "low", "close", "volume")]
    assert shown == [500_000_000, 500_000_000, -40_320_000_000, -40_320_000_000, 17]
    assert (spread["low"], spread["volume"]) == ("-52050000000", "4")


def test_they_make_vwaps(signed):
    vwaps = [int(row["price"]) for row in rows("vwap", signed, "--window", 10)]
    total, volume, expected = 0, 0, []
    for price, size in OIL:
        total, volume = total + price * size, volume + size
        expected.append(round(total / volume))
    assert vwaps == [*expected, SPREAD[0]]


def test_they_are_stored_and_exported_and_imported(signed, tmp_path):
    url = f"sqlite:///{tmp_path}/signed.db"
    done = completed("store", signed, "--store", url)
    assert b"5 trades new, 0 known already, 2 left out (price 1, volume 1)" in done.stdout
    for name in ("trades.parquet", "trades.csv", "trades.arrow"):
        copy = f"sqlite:///{tmp_path}/{name}.db"
        assert completed("store", "export", tmp_path / name, "--store", url).returncode == 0
        assert completed("store", "import", tmp_path / name, "--store", copy).returncode == 0
        for place in (url, copy):
            with open_history(place) as history:
                page = history.page("CLK0", 10)
                pairs = zip(page.trades.price.tolist(), page.trades.size.tolist(), strict=True)
                assert list(pairs) == OIL[::-1]
        assert completed("store", "check", "--store", copy).returncode == 0


def test_frames_of_them_are_sent_and_accepted_where_any_price_is(signed, tmp_path):
    lines = tmp_path / "lines.json"
    ticks = [
        {"symbol": "CLK0", "price": -1.5, "volume": 1, "exchange_timestamp": MAY_1},
        {"symbol": "CLK0", "price": 0, "volume": 1, "exchange_timestamp": MAY_1},
    ]
    lines.write_text("".join(json.dumps(tick) + "\n" for tick in ticks))
    with (
        service("aggregate", "--port", 0) as aggregate,
        service(
            "serve-tcp", "--port", 0, "--aggregator", aggregate.address, "--prices", "any"
        ) as ingest,
        Watch(aggregate.address) as watch,
    ):
        positive = completed("send", signed, ingest.address)
        assert positive.stdout.startswith(b"Accepted 1 tick, refused 0")
        assert b"left out 6 trades without a price above 0" in positive.stderr
        some = completed("send", signed, ingest.address, "--prices", "any")
        assert some.stdout.startswith(b"Accepted 5 ticks, refused 0")
        assert b"left out 2 trades without a price, a size" in some.stderr
        more = completed("send", lines, ingest.address, "--prices", "any")
        assert more.stdout.startswith(b"Accepted 2 ticks, refused 0")
        watch.until(8)
        oil = watch.sessions["CLK0"]
        assert oil == (500_000_000, 500_000_000, -40_320_000_000, 0, 21, 7)
        assert watch.sessions["ESM4-ESU4"] == (*[SPREAD[0]] * 4, 4, 1)


def test_frames_of_them_are_refused_and_counted_where_prices_are_positive(signed):
    with (
        service("aggregate", "--port", 0) as aggregate,
        service("serve-tcp", "--port", 0, "--aggregator", aggregate.address) as ingest,
    ):
        done = completed("send", signed, ingest.address, "--prices", "any")
        assert done.stdout.startswith(b"Accepted 1 tick, refused 4")
        assert b"4 price" in done.stdout
