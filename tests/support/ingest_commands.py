"""The installed commands as processes, and what the aggregator holds of what they sent."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from mdtool.adapters import rpc
from mdtool.core.lifecycle import READY_FD
from mdtool.core.symbols import SymbolTable
from mdtool.wire._pb import marketdata_pb2
from mdtool.wire.batches import decode_updates

MDTOOL = str(Path(sys.executable).with_name("mdtool"))


@dataclass
class Service:
    """A service at work."""

    process: subprocess.Popen
    address: str

    def end(self, number: int) -> tuple[int, str]:
        """Send a signal; return the exit status, and what was said on stderr."""
        self.process.send_signal(number)
        said = self.process.communicate()[1].decode()
        return self.process.returncode, said


@contextlib.contextmanager
def service(*arguments: object, **options):
    """Run a service, and yield it once it is ready; without an address, where it has none."""
    read_fd, write_fd = os.pipe()
    with os.fdopen(read_fd) as ready:
        process = subprocess.Popen(
            [MDTOOL, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(write_fd,),
            env={**os.environ, READY_FD: str(write_fd)},
            **options,
        )
        os.close(write_fd)
        with process:
            try:
                line = ready.readline()
                assert line, process.communicate()[1].decode()
                yield Service(process, "".join(json.loads(line)["addresses"].values()))
            finally:
                process.kill()


class Watch:
    """The aggregator's state as it goes on, over its stream of updates."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._updates = rpc.Stub(self._channel).StreamUpdates(marketdata_pb2.UpdatesRequest())
        self._symbols = SymbolTable()
        self.counts = None
        self.sessions: dict[str, tuple[int, ...]] = {}

    def __enter__(self):
        return self

    def __exit__(self, *exc_info) -> None:
        self._updates.cancel()
        self._channel.close()

    def until(self, ticks: int) -> None:
        """Read on until the aggregator has taken at least so many ticks."""
        while self.counts is None or self.counts.ticks < ticks:
            updates = decode_updates(next(self._updates), self._symbols)
            self.counts = updates.counts
            columns = (updates.open, updates.high, updates.low, updates.close)
            columns += (updates.volume, updates.count)
            for k, symbol in enumerate(updates.symbol):
                session = tuple(int(column[k]) for column in columns)
                self.sessions[self._symbols[symbol]] = session


def sessions_of(trades: np.ndarray, names: dict[int, str]) -> dict[str, tuple[int, ...]]:
    """Return what the aggregator should hold of DBN trades, by symbol."""
    sessions = {}
    for instrument_id in np.unique(trades["instrument_id"]):
        own = trades[trades["instrument_id"] == instrument_id]
        price, size = own["price"], own["size"].astype(np.int64)
        sessions[names[int(instrument_id)]] = (
            int(price[0]),
            int(price.max()),
            int(price.min()),
            int(price[-1]),
            int(size.sum()),
            len(own),
        )
    return sessions
