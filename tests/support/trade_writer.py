"""Pours trades of AAPL into a store, a few steps for each line on stdin, until that ends.

Arguments are the store's URL and how many trades to write at first, all at one nanosecond; it says
on stdout when those are there. Each price, in units of 1e-9, tells how many were written before.
"""

from __future__ import annotations

import itertools
import sys

from mdtool.adapters.stores import open_store
from tests.support.stores import NOON_NS, run, step

ID = "poured"
STEPS = 3
"""For each line."""
BATCH = 100
"""Trades in each."""
LATER_NS = (0, 0, 1, 10**6, -(10**6))
"""When trades take place that come afterwards: at that nanosecond, or soon before or after it."""


def main(url: str, first: int) -> None:
    with open_store(url) as store:
        store.write(step(["AAPL"], run(ID, 0, [(0, n + 1, 1, NOON_NS) for n in range(first)])))
        print("ready", flush=True)
        moments = itertools.cycle(LATER_NS)
        starts = itertools.count(first, BATCH)
        for start in itertools.chain.from_iterable(
            itertools.islice(starts, STEPS) for _ in sys.stdin
        ):
            trades = [(0, start + n + 1, 1, NOON_NS + next(moments)) for n in range(BATCH)]
            store.write(step(["AAPL"], run(ID, start, trades)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
