"""The stores that tests hold to one contract, and steps to write into them."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import numpy as np

from mdtool.adapters.stores.errors import StoreClaimedError, StoreUnavailableError
from mdtool.adapters.stores.port import Step, StreamRun
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Trades
from mdtool.engine.saved_state import SAVED_BAR, SESSION

NewUrl = Callable[[], str]
"""Names a place where no store is yet, another one at each call."""
NOON_NS: Final = 1_735_214_400 * 10**9
MS: Final = 10**6


@contextlib.contextmanager
def sqlite_stores(folder: Path) -> Iterator[NewUrl]:
    """Files in a folder, which tests need not have on the disk for good."""
    numbers = itertools.count()
    yield lambda: f"sqlite:///{folder}/store-{next(numbers)}.db?synchronous=normal"


@contextlib.contextmanager
def postgresql_stores(_folder: Path) -> Iterator[NewUrl]:
    """Databases of a server that all tests share."""
    from tests.support.postgres_servers import shared_server

    yield shared_server().new_url


@contextlib.contextmanager
def mongodb_stores(_folder: Path) -> Iterator[NewUrl]:
    """Databases of a server that all tests share."""
    from tests.support.mongodb_servers import shared_server

    yield shared_server().new_url


STORES: Final[dict[str, Callable[[Path], AbstractContextManager[NewUrl]]]] = {
    "sqlite": sqlite_stores,
    "postgresql": postgresql_stores,
    "mongodb": mongodb_stores,
}
"""Where the tests of a store get theirs, by the scheme of its URL."""


def share(url: str) -> int:
    """By what tests divide many trades: FerretDB reads all for a page, 10,000 a second."""
    return 20 if url.startswith("mongodb:") else 1


def run(stream_id: str, first: int, trades, *, frames: int | None = None, is_part: bool = False):
    """A run whose frames are trades: rows of symbol index, price, volume and exchange time.

    None among them is a frame that was refused. `frames` counts those and others after them.
    """
    taken = [(first + place, *trade) for place, trade in enumerate(trades) if trade is not None]
    columns = np.array(taken, np.int64).reshape(-1, 5).T.copy()
    return StreamRun(
        stream_id,
        first,
        first + (len(trades) if frames is None else frames),
        sequence=columns[0],
        trades=Trades(
            symbol=columns[1].astype(np.uint32),
            price=columns[2],
            size=columns[3],
            ts_event=columns[4],
            ts_recv=columns[4] + 5,
        ),
        is_part=is_part,
    )


def step(symbols, *runs, sessions=None, bars=(), counts=None, lots=None) -> Step:
    """A step of runs, of sessions by the indices of their symbols, of bars and of counts."""
    sessions = sessions or {}
    return Step(
        SymbolTable(symbols),
        runs,
        np.array(list(sessions), np.uint32),
        np.array([tuple(session) for session in sessions.values()], SESSION),
        np.array([tuple(bar) for bar in bars], SAVED_BAR),
        counts or {},
        lots or {},
    )


def until_taken(work):
    """Try until the store can."""
    while True:
        with contextlib.suppress(StoreUnavailableError):
            return work()
        time.sleep(0.05)


def claim_when_free(store):
    """Claim as soon as the server has noticed that the connection of another is gone."""
    while True:
        with contextlib.suppress(StoreClaimedError):
            return store.claim()
