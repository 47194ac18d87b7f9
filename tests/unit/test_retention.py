"""What a store keeps, and what is deleted of it."""

from __future__ import annotations

import pytest

from mdtool.adapters.stores import open_store
from mdtool.core.errors import UsageError
from mdtool.core.units import NS_PER_DAY
from mdtool.services.store.retention import Keep, Pruned, Retention
from tests.support.stores import run, step

DAY_0 = 20_000 * NS_PER_DAY
HOUR = NS_PER_DAY // 24
NOW = DAY_0 + 30 * NS_PER_DAY


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("90d", Keep(90 * NS_PER_DAY)),
        ("20GB", Keep(None, 20 * 10**9)),
        ("1.5GiB, 36h", Keep(36 * HOUR, 3 << 29)),
    ],
)
def test_what_is_kept_is_an_age_a_size_or_both(text, kept):
    assert Keep.parse(text) == kept


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "says nothing"),
        ("90d,1d", "two ages"),
        ("1GB,2GB", "two ages or two sizes"),
        ("23h", "give 1d or more"),
        ("90", "a size such as 20GB"),
    ],
)
def test_what_cannot_be_kept_is_said(text, said):
    with pytest.raises(UsageError, match=said):
        Keep.parse(text)


def test_a_session_without_end_is_not_cut():
    with pytest.raises(UsageError, match="never"):
        Retention(Keep(NS_PER_DAY), "never")


@pytest.fixture
def store(tmp_path):
    """A store with 1,000 trades on each of ten days, one after the other."""
    with open_store(f"sqlite:///{tmp_path}/s.db?synchronous=normal") as opened:
        for day in range(10):
            begin = DAY_0 + day * NS_PER_DAY
            rows = [(0, 10**9, 1, begin + n * (NS_PER_DAY // 1_000)) for n in range(1_000)]
            opened.write(step(["A"], run("s", day * 1_000, rows)))
        yield opened


def days(store):
    """The days of which the store has all trades."""
    times = [t for page in store.trades("A") for t in page.trades.ts_event.tolist()]
    found = sorted({(t - DAY_0) // NS_PER_DAY for t in times})
    assert len(times) == 1_000 * len(found)
    assert store.recount() == []
    return found


def test_age_is_counted_back_from_the_latest_trade(store):
    retention = Retention(Keep(3 * NS_PER_DAY), "00:00")
    assert retention.apply(store, NOW) == Pruned(6_000, DAY_0 + 6 * NS_PER_DAY)
    assert days(store) == [6, 7, 8, 9]
    assert retention.apply(store, NOW) is None


def test_a_time_in_the_future_deletes_nothing_else(store):
    far = run("t", 0, [(0, 1, 1, NOW + 9_000 * NS_PER_DAY)])
    store.write(step(["B"], far))
    now = DAY_0 + 10 * NS_PER_DAY
    kept_from = now - 5 * NS_PER_DAY
    pruned = Retention(Keep(5 * NS_PER_DAY), "00:00").apply(store, now)
    assert pruned == Pruned(5_000, kept_from)
    assert days(store) == [5, 6, 7, 8, 9]


def test_sessions_are_deleted_as_a_whole(store):
    retention = Retention(Keep(2 * NS_PER_DAY), "17:00 America/New_York")
    pruned = retention.apply(store, NOW)
    assert pruned is not None
    # The session that has the moment two days before the latest trade began at 22:00 UTC.
    assert pruned.before_ns == DAY_0 + 7 * NS_PER_DAY + 21 * HOUR


def test_a_size_is_kept_but_never_less_than_the_latest_session(store, caplog):
    before = store.used_bytes()
    kept = Retention(Keep(None, before * 3 // 5), "00:00")
    pruned = kept.apply(store, NOW)
    assert pruned is not None
    assert pruned.trades >= 2_000
    assert days(store)[-1] == 9
    assert store.used_bytes() <= before * 3 // 5
    Retention(Keep(None, 1), "00:00").apply(store, NOW)
    assert days(store) == [9]
    assert "its latest session alone exceeds `keep`" in caplog.text


def test_an_empty_store_has_nothing_to_delete(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/s.db") as store:
        assert Retention(Keep(NS_PER_DAY, 1), "00:00").apply(store, NOW) is None
