"""Each trade counts once, however the views that show it are interleaved."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mdtool.core.batch import Batch, Resolver
from mdtool.core.dtypes import MBO, MBP1, MBP10, TRADE
from mdtool.core.instruments import Instruments
from mdtool.engine.trade_views import TradeViews
from tests.support.dbn_files import DAY, MAY_1

LAYOUTS = {0: TRADE, 160: MBO, 1: MBP1, 10: MBP10}
GAPS = st.sampled_from([0, 0, 1, 10**9, 9 * 3_600 * 10**9])
GAPS_OF_A_DAY = st.sampled_from([0, 0, 1, 10**9, 3_600 * 10**9])


def shown(rtype, ts_ns, size):
    record = np.zeros(1, LAYOUTS[rtype])
    record["rtype"], record["action"] = rtype, b"T"
    record["ts_event"] = record["ts_recv"] = ts_ns
    record["size"] = size
    return record


@st.composite
def streams(draw):
    """Times of trades, and an order in which views show them: (rtype, number of the trade).

    There are trades of several dates, or more than two views.
    """
    gaps, views = draw(st.sampled_from([(GAPS, 2), (GAPS_OF_A_DAY, 4)]))
    times = (MAY_1 + np.cumsum(draw(st.lists(gaps, min_size=1, max_size=20)))).tolist()
    rtypes = draw(st.lists(st.sampled_from([*LAYOUTS]), min_size=1, max_size=views, unique=True))
    at = dict.fromkeys(rtypes, 0)
    order = []
    while waiting := [rtype for rtype in rtypes if at[rtype] < len(times)]:
        rtype = draw(st.sampled_from(waiting))
        # The other views are behind by less than a day.
        slowest = min(at.values())
        if times[at[rtype]] - times[slowest] >= DAY:
            continue
        order.append((rtype, at[rtype]))
        at[rtype] += 1
    return times, order


@given(streams())
def test_a_trade_counts_once(stream):
    times, order = stream
    views = TradeViews()
    resolver = Resolver(Instruments(), "a stream")
    counted = []
    for rtype, number in order:
        batch = resolver.batch(shown(rtype, times[number], number + 1))
        counted += views.choose(batch).records["ts_recv"].tolist()
    assert sorted(counted) == times
    assert views.counted.total() == len(times)
    assert views.counted.total() + views.left_out.total() == len(order)


@given(streams(), st.lists(st.integers(1, 5), min_size=1))
def test_a_stream_may_be_cut_anywhere(stream, lengths):
    times, order = stream
    one_by_one, in_runs = TradeViews(), TradeViews()
    resolver = Resolver(Instruments(), "a stream")
    for rtype, number in order:
        one_by_one.choose(resolver.batch(shown(rtype, times[number], 1)))
    begin = 0
    while begin < len(order):
        rtype = order[begin][0]
        end = begin + 1
        most = lengths[begin % len(lengths)]
        while end < len(order) and order[end][0] == rtype and end - begin < most:
            end += 1
        records = np.concatenate([shown(rtype, times[n], 1) for _, n in order[begin:end]])
        in_runs.choose(resolver.batch(records))
        begin = end
    assert in_runs.counted == one_by_one.counted
    assert in_runs.later == one_by_one.later


def test_a_view_that_begins_earlier_counts_what_others_lack():
    views, resolver = TradeViews(), Resolver(Instruments(), "a stream")
    stream = [(10, 5), (160, 2), (160, 3), (0, 1), (0, 2), (0, 5), (160, 5), (0, 6)]
    counted = []
    for rtype, second in stream:
        batch = resolver.batch(shown(rtype, MAY_1 + second * 10**9, 1))
        counted += [second] * len(views.choose(batch))
    assert counted == [5, 2, 3, 1, 6]


def test_views_of_different_times_are_joined():
    views, resolver = TradeViews(), Resolver(Instruments(), "a stream")
    stream = [(0, MAY_1), (160, MAY_1 + DAY), (10, MAY_1 + 2 * DAY), (10, MAY_1 + 2 * DAY + 1)]
    chosen = [views.choose(resolver.batch(shown(rtype, ts, 1))) for rtype, ts in stream]
    assert [len(batch) for batch in chosen] == [1, 1, 1, 1]
    assert isinstance(chosen[0], Batch)


def test_trades_after_the_last_one_of_the_preferred_view_are_told():
    views, resolver = TradeViews(), Resolver(Instruments(), "a stream")
    for rtype, second in [(0, 1), (160, 1), (160, 2), (160, 3)]:
        views.choose(resolver.batch(shown(rtype, MAY_1 + second * 10**9, 1)))
    assert views.counted == {0: 1, 160: 0}
    assert views.later == 2
