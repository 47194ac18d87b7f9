"""A store that services restore, and that is read while they run."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

from tests.support.store_commands import held, store, trades, url, write
from tests.support.supervised import FREE_PORTS, serve

SYMBOLS = ["AAPL", "ESZ5"]


def get(address: str, path: str) -> dict:
    """The answer of a gateway, once it knows the aggregator's state."""
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/api/v1/{path}") as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            if error.code not in {404, 503}:
                raise


def test_services_restore_a_stored_market(tmp_path):
    records, where = trades(900, SYMBOLS), url(tmp_path)
    records["price"] %= 10**12
    file = write(tmp_path / "day.dbn", records, SYMBOLS)
    store(file, "--store", where)
    mine = records[records["instrument_id"] == 1]
    options = ["--store", where, "--only", "aggregate,gateway", *FREE_PORTS]
    with serve("all", "-J", *options) as services:
        gateway = services.addresses(2)["gateway"]
        session = get(gateway, "marketdata/AAPL")
        assert session["volume"] == str(mine["size"].sum(dtype="i8"))
        assert session["open"] == mine["price"][0] / 1e9
        assert session["close"] == mine["price"][-1] / 1e9
        bars = get(gateway, "bars/AAPL?interval=1m&limit=100")["data"]
        assert sum(int(bar["volume"]) for bar in bars) == mine["size"].sum(dtype="i8")
        known = get(gateway, "symbols")["data"]["available"]
        assert [each["symbol"] for each in known] == SYMBOLS
        assert known[0]["trade_count"] == len(mine)

        store(file, "--store", where, status=3, said=str(tmp_path / "s.db"))
        store("export", tmp_path / "t.csv", "--store", where)
        said = "sessions and bars are not compared"
        assert "differences: 0" in store("check", "--store", where, said=said)
    assert len(held(where)) == 900
    assert "900 known already" in store(file, "--store", where)
