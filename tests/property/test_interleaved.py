"""Interleaved records are written and chosen as their runs are, one after the other."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.adapters.outputs import FORMATS, OutputSpec, open_output
from mdtool.core.batch import Batch
from mdtool.core.interleaved import Interleaved
from mdtool.wire import text
from tests.reference import dbn_streams as streams
from tests.support.instruments import batch

MAKERS = (streams.mbo, streams.trades, lambda n: streams.bars(n, 32), lambda n: streams.bars(n, 33))
COUNTER = itertools.count()


@st.composite
def interleaved(draw):
    makers = draw(st.lists(st.sampled_from(MAKERS), min_size=1, max_size=3))
    part_of = draw(st.lists(st.integers(0, len(makers) - 1), min_size=1, max_size=20))
    parts = [batch(make(part_of.count(i))) for i, make in enumerate(makers)]
    return Interleaved(parts, np.array(part_of))


def records(batches):
    return [record.tobytes() for each in batches for record in each.records]


@given(merged=interleaved())
def test_words_and_columns_are_those_of_the_runs(merged):
    runs = list(merged.runs())
    assert merged.words.tobytes() == b"".join(records(runs))
    assert len(merged) == sum(map(len, runs))
    for name in ("instrument", "index_timestamps", "is_selected"):
        wanted = np.concatenate([getattr(run, name) for run in runs])
        assert np.array_equal(getattr(merged, name), wanted)
    assert merged.rtypes == {run.rtype for run in runs}
    assert merged.n_bytes == sum(run.n_bytes for run in runs)


@given(merged=interleaved(), data=st.data())
def test_some_of_the_records(merged, data):
    n = len(merged)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    everything = records(merged.runs())
    if mask.any():
        wanted = [record for record, is_wanted in zip(everything, mask, strict=True) if is_wanted]
        assert records(merged[mask].runs()) == wanted
    end = data.draw(st.integers(1, n))
    assert records(merged[:end].runs()) == everything[:end]


@given(merged=interleaved())
def test_some_of_the_parts(merged):
    asked = []

    def is_wanted(part: Batch) -> bool:
        asked.append(part.rtype)
        return part.records.dtype == part_dtype

    first = next(merged.runs())
    part_dtype = first.records.dtype
    chosen = merged.of_parts(is_wanted)
    assert asked[0] == first.rtype
    wanted = [run for run in merged.runs() if run.records.dtype == part_dtype]
    assert records([chosen.as_batch()]) == records(wanted)
    assert merged.of_parts(lambda _part: False) is None


@pytest.mark.parametrize("uses_kernel", [True, False])
@pytest.mark.parametrize("schema", ["mbo", None])
@pytest.mark.parametrize("name", [name for name in FORMATS if not name.endswith(".zst")])
def test_every_format_has_the_runs(name, schema, uses_kernel, tmp_path, monkeypatch):
    monkeypatch.setattr(text, "uses_kernel", lambda _n_bytes: uses_kernel)

    @given(merged=interleaved())
    def check(merged):
        written = []
        for batches in ([merged], merged.runs()):
            path = tmp_path / f"{next(COUNTER)}.{name}"
            output = open_output(
                OutputSpec(name, str(path), maps_symbols=True), streams.metadata(schema)
            )
            for each in batches:
                output.write(each)
            output.close()
            written.append(path.read_bytes())
        assert written[0] == written[1]

    check()
