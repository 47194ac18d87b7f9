"""A process that writes a store, for tests that end it, or run several of them at once.

    python -m tests.support.store_writer URL STEPS STREAM...

It writes each stream from where the store has it, one step after the other, each until the store
has taken it, and prints `STREAM POSITION` after each. Every frame is a trade: even ones of AAPL,
odd ones of MSFT. The session that goes with it counts the frames of that writer's first stream.
With 0 STEPS it holds the store's market until it is ended.
"""

from __future__ import annotations

import signal
import sys

from mdtool.adapters.stores import open_store
from tests.support.stores import MS, NOON_NS, run, step, until_taken

SYMBOLS = ["AAPL", "MSFT"]
TRADES = 50
"""In each step."""


def main(url: str, steps: int, streams: list[str]) -> None:
    with open_store(url) as store:
        if not steps:
            store.claim()
        print("open", flush=True)
        for _ in range(steps):
            for stream in streams:
                first = store.position(stream) or 0
                trades = [(n % 2, n + 1, 1, NOON_NS + n * MS) for n in range(first, first + TRADES)]
                ticks = {f"{stream}.ticks": first + TRADES}
                session = (1, 1, 1, 1, 1, first + TRADES, NOON_NS, NOON_NS)
                sessions = {0: session} if stream == streams[0] else {}
                each = step(SYMBOLS, run(stream, first, trades), sessions=sessions, counts=ticks)
                until_taken(lambda each=each: store.write(each))
                print(stream, first + TRADES, flush=True)
        if not steps:
            signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
