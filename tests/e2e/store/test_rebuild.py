"""`mdtool aggregate --rebuild`: sessions and bars of stored trades are those that were there."""

from __future__ import annotations

import sqlite3

import numpy as np
import pymongo
import pytest

from mdtool.adapters.stores import open_store
from mdtool.adapters.stores.steps import Steps
from mdtool.core.trades import Frames, Trades
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.markets import new_market
from tests.support.commands import output_of
from tests.support.store_commands import NOON_NS, store, trades, write
from tests.support.stores import STORES, share, until_taken

pytestmark = pytest.mark.usefixtures("no_settings")

SECOND_NS = 10**9
SYMBOLS = ["A", "B", "C"]
TABLES = ("sessions", "open_bars", "bars")


@pytest.fixture(params=STORES)
def url(request, tmp_path):
    with STORES[request.param](tmp_path) as new_url:
        yield new_url()


def fill(url, seed=5):
    """What a service stores of two streams over days: some ticks late, some far too late."""
    random = np.random.default_rng(seed)
    market = new_market(AggregatorConfig())
    for name in SYMBOLS:
        market.intern(name)
    steps = Steps(market)
    sequence = {"x": 0, "y": 0}
    now_ns, changes = NOON_NS, []
    with open_store(url) as opened:
        for _ in range(120 // min(share(url), 6)):
            n = int(random.integers(1, 40))
            late_ns = random.choice([0, 5, 90, 100_000], n, p=[0.8, 0.1, 0.05, 0.05]) * SECOND_NS
            batch = Trades(
                symbol=random.integers(0, len(SYMBOLS), n).astype(np.uint32),
                price=random.integers(1, 10**6, n) * 10**6,
                size=random.integers(1, 100, n),
                ts_event=now_ns + np.sort(random.integers(0, SECOND_NS * 60, n)) - late_ns,
                ts_recv=now_ns + np.arange(n, dtype=np.int64),
            )
            stream = str(random.choice(["x", "y"]))
            changes.append(market.apply(stream, sequence[stream], Frames.of(batch)))
            sequence[stream] += n
            if random.random() < 0.3:  # steps have several batches, and often several days
                opened.write(steps.take(changes))
                changes.clear()
            now_ns += int(random.integers(60, 15_000)) * SECOND_NS
        opened.write(steps.take(changes))


def rebuild(url, *options, status=0, said=""):
    return output_of("aggregate", "--rebuild", "--store", url, *options, status=status, said=said)


def contents(url):
    """The state that a market restores, and all bars."""
    with open_store(url) as opened:
        state = until_taken(lambda: opened.load(100, 10**10))
        bars = {
            (symbol, interval): opened.bars(symbol, interval, 10**6).tolist()
            for symbol in SYMBOLS
            for interval in {int(each) for each in state.bars["interval_ns"]}
        }
    order = np.argsort(state.symbols)
    names = [state.symbols[each] for each in order]
    return names, state.sessions[order].tolist(), bars


def test_what_was_there_is_made_again(url):
    fill(url)
    before = contents(url)
    assert sum(map(len, before[2].values())) > 500 // min(share(url), 6)
    assert b"of 3 symbols again from " in (done := rebuild(url))
    assert done.endswith(b"; 0 were other ones before\n")
    assert contents(url) == before


def damage_sqlite(url):
    with sqlite3.connect(url.removeprefix("sqlite:///").partition("?")[0]) as file:
        file.execute("DELETE FROM bars WHERE start % 3 = 0")
        file.execute("UPDATE sessions SET volume = volume + 1")
        file.execute("DELETE FROM open_bars")
    file.close()


def damage_mongodb(url):
    with pymongo.MongoClient(url) as client:
        database = client.get_default_database()
        bars = list(database.bars.find().sort("_id"))
        changed, deleted, moved = bars[1:40:13], bars[2:40:13], bars[3]
        for each in changed:
            database.bars.update_one({"_id": each["_id"]}, {"$inc": {"volume": 1}})
        database.bars.delete_many({"_id": {"$in": [each["_id"] for each in deleted]}})
        database.bars.insert_one(moved | {"_id": moved["_id"][:-1] + b"\x01"})
        database.symbols.update_many({}, {"$inc": {"session.volume": 1}, "$set": {"open_bars": {}}})


@pytest.mark.parametrize("damage", [damage_sqlite, damage_mongodb])
def test_damage_is_made_good(damage, tmp_path):
    with STORES[damage.__name__.removeprefix("damage_")](tmp_path) as new_url:
        url = new_url()
        fill(url)
        before = contents(url)
        damage(url)
        assert contents(url) != before
        assert not rebuild(url).endswith(b"; 0 were other ones before\n")
        assert contents(url) == before
        assert ", differences: 0," in store("check", "--store", url)


def test_sessions_may_begin_at_another_time(tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    store(write(tmp_path / "t.dbn", trades(3_000)), "--store", url)
    session = ("--session", "17:00 America/Chicago")
    rebuild(url, *session)
    assert rebuild(url, *session).endswith(b"; 0 were other ones before\n")


def test_a_store_in_use_is_not_rebuilt(tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    rebuild(url, status=1, said="there is no such file")
    assert not (tmp_path / "s.db").exists()
    fill(url)
    with open_store(url) as used:
        used.claim()
        rebuild(url, status=3, said="is in use by process")
    rebuild(url, tmp_path / "t.dbn", status=2, said="INPUT")
