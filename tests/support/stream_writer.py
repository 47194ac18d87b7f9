"""A process that writes runs into a store.

Run as `python -m tests.support.stream_writer URL STREAM FRAMES`.

Frame n of any stream is a trade of AAPL or MSFT, n + 1 of volume n % 7 + 1 at n milliseconds.
"""

from __future__ import annotations

import contextlib
import sys

from mdtool.adapters.stores import open_store
from tests.support.stores import MS, NOON_NS, run, step, until_taken

SYMBOLS = ["AAPL", "MSFT"]
RUN_FRAMES = 50


def frames(stream, first, count):
    """The frames of a stream from one on."""
    trades = [(n % 2, n + 1, n % 7 + 1, NOON_NS + n * MS) for n in range(first, first + count)]
    return run(stream, first, trades)


def write_all(url, stream, count):
    """Write all frames of a stream in steps, each until the store has taken it."""
    with contextlib.ExitStack() as stack:
        store = open_store(url)
        until_taken(lambda: stack.enter_context(store))
        for first in range(0, count, RUN_FRAMES):
            until_taken(
                lambda first=first: store.write(step(SYMBOLS, frames(stream, first, RUN_FRAMES)))
            )


if __name__ == "__main__":
    write_all(sys.argv[1], sys.argv[2], int(sys.argv[3]))
