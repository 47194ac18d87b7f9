"""The bench of what a replay holds, at a size that proves it runs."""

from __future__ import annotations

import numpy as np

from mdtool.bench.memory import measure

MB = 1 << 20


def test_what_the_bench_itself_holds_is_not_counted():
    held = np.ones(300 * MB, np.uint8)
    (figure,) = measure(records=2_000)
    assert 0 < figure.value < held.nbytes / MB
    assert figure.baseline_value < held.nbytes / MB
