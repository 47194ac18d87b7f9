"""A merge is a stable sort of everything by time, whatever the arrays in which it comes."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.engine.merge import Stream, merge
from tests.reference import dbn_streams as streams
from tests.support.instruments import bare, batch

MAKERS = (streams.mbo, streams.trades)

chunk = st.lists(st.integers(0, 20), min_size=1, max_size=6)
stream = st.tuples(st.sampled_from(MAKERS), st.lists(chunk, max_size=5), st.integers(0, 5))


def arrays(make, chunks, number):
    """Arrays at the times given, counted in order of the stream; `sequence` tells each record."""
    times = np.maximum.accumulate([time for times in chunks for time in times])
    result, at = [], 0
    for times_of_chunk in chunks:
        records = make(len(times_of_chunk))
        records["ts_recv"] = streams.START + times[at : at + len(records)]
        records["sequence"] = number * 1000 + np.arange(at, at + len(records))
        result.append(records)
        at += len(records)
    return result


def runs(merging):
    """What a merge yields, as batches of one rtype."""
    return [run for merged in merge(merging) for run in merged.runs()]


@pytest.mark.parametrize("fan_in", [2, 16])
@given(specs=st.lists(stream, max_size=6))
def test_it_is_a_stable_sort(fan_in, specs):
    sources = [arrays(make, chunks, i) for i, (make, chunks, _) in enumerate(specs)]
    everything = [record for source in sources for array in source for record in array]
    begins = [
        int(source[0]["ts_recv"][0]) - early if source else streams.START
        for source, (_, _, early) in zip(sources, specs, strict=True)
    ]
    wanted = sorted(everything, key=lambda record: record["ts_recv"])
    merging = [Stream(map(batch, source), at) for source, at in zip(sources, begins, strict=True)]
    with mock.patch("mdtool.engine.merge._FAN_IN", fan_in):
        merged = list(bare(runs(merging)))
    assert all(len(set(array["rtype"].tolist())) == 1 for array in merged)
    got = [record for array in merged for record in array]
    assert [record.tobytes() for record in got] == [record.tobytes() for record in wanted]


@given(st.lists(st.lists(chunk, min_size=1, max_size=4), min_size=1, max_size=3))
def test_a_stream_whose_time_goes_back_keeps_its_own_order(specs):
    sources = []
    for number, chunks in enumerate(specs):
        arrays_of_one = []
        for at, times in enumerate(chunks):
            records = streams.mbo(len(times))
            records["ts_recv"] = streams.START + np.array(times)
            records["sequence"] = number * 1000 + at * 10 + np.arange(len(times))
            arrays_of_one.append(records)
        sources.append(arrays_of_one)
    merged = list(bare(runs([Stream(map(batch, source)) for source in sources])))
    order = np.concatenate([array["sequence"] for array in merged])
    for number in range(len(specs)):
        own = order[order // 1000 == number]
        assert (np.diff(own.astype(np.int64)) > 0).all()
    assert len(order) == sum(len(times) for chunks in specs for times in chunks)


def test_bars_of_two_cadences_are_not_put_into_one_array():
    seconds, minutes = streams.bars(4, 32), streams.bars(4, 33)
    merged = list(bare(runs([Stream(iter([batch(seconds)])), Stream(iter([batch(minutes)]))])))
    assert [array["rtype"][0] for array in merged] == [32, 33] * 4


def test_nothing_is_read_ahead_of_what_is_wanted():
    pulled = []

    def source(name, first):
        for i in range(3):
            pulled.append((name, i))
            yield batch(streams.mbo(2, first + 2 * i))

    merged = merge([Stream(source("a", 0)), Stream(source("b", 100))])
    next(merged)
    assert pulled == [("a", 0), ("b", 0)]


def test_a_stream_that_begins_later_is_not_read_before():
    pulled = []

    def source(name, first):
        for i in range(2):
            pulled.append((name, i))
            yield batch(streams.mbo(2, first + 2 * i, step_ns=1))

    late = Stream(source("late", 100), streams.START + 100)
    early = Stream(source("early", 0), streams.START)
    got = [array["sequence"].tolist() for array in bare(runs([late, early]))]
    assert got == [[0, 1], [2, 3], [100, 101], [102, 103]]
    assert pulled == [("early", 0), ("early", 1), ("late", 0), ("late", 1)]
