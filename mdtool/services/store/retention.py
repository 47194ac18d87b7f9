"""How long a store keeps trades: by age, by size, and when that is seen to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import numpy as np

from mdtool.adapters.stores import Store, open_store
from mdtool.adapters.stores.errors import StoreError
from mdtool.adapters.stores.port import MIN_NS, TradeKey
from mdtool.core.buckets import NEVER, Buckets, parse_sessions
from mdtool.core.errors import UsageError
from mdtool.core.units import NS_PER_DAY, counted, format_time, parse_duration

log = logging.getLogger(__name__)

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)(MB|GB|TB|MiB|GiB|TiB)")
_UNITS: Final = {
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}
_EVERY_S: Final = 600.0
"""A store may exceed what it keeps by what comes in this time."""


@dataclass(frozen=True, slots=True)
class Keep:
    """What a store keeps.

    Attributes
    ----------
    age_ns : int or None
        Trades younger than that.
    size_bytes : int or None
        The latest trades, of about that size.
    """

    age_ns: int | None = None
    size_bytes: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what a text such as `90d`, `20GB` or `90d,20GB` says.

        Raises
        ------
        UsageError
            When it says neither an age nor a size, one of them twice, or an age below a day.
        """
        age_ns = size_bytes = None
        for part in filter(None, (each.strip() for each in text.split(","))):
            size = _SIZE.fullmatch(part)
            if size is not None and size_bytes is None:
                size_bytes = int(float(size[1]) * _UNITS[size[2]])
            elif size is None and age_ns is None:
                age_ns = parse_duration(part, ", or a size such as 20GB")
            else:
                raise UsageError(f"{text!r} says two ages or two sizes; give one of each at most")
        if age_ns is None and size_bytes is None:
            raise UsageError(f"{text!r} says nothing; give an age, a size or both, as in 90d,20GB")
        if age_ns is not None and age_ns < NS_PER_DAY:
            raise UsageError(f"{text!r}: whole sessions are kept; give 1d or more")
        return cls(age_ns, size_bytes)


class Pruned(NamedTuple):
    """What was deleted: how many trades, and the time from which on all are kept."""

    trades: int
    before_ns: int


class Retention:
    """Deletes the sessions of a store that it need not keep, the oldest first.

    Age is exchange time, back from the latest trade, or from now where that is earlier: a store of
    old recordings keeps them, and a trade with a time in the future deletes nothing. Whole sessions
    are deleted, so that the totals, sessions and bars that remain agree with the trades.

    Parameters
    ----------
    keep : Keep
    session : str
        When sessions begin: `[aggregate] session`.

    Raises
    ------
    UsageError
        When sessions never begin anew.
    """

    def __init__(self, keep: Keep, session: str) -> None:
        if session == NEVER:
            raise UsageError(
                "keep: the one session of `[aggregate] session = never` has all trades"
            )
        self._keep = keep
        self._sessions = parse_sessions(session)

    def apply(self, store: Store, now_ns: int) -> Pruned | None:
        """Delete what is not kept; return None where that is nothing.

        Raises
        ------
        UsageError
            When a size is kept, and the store cannot tell its own.
        StoreError
            When the store cannot be read or written.
        """
        latest = max((totals.last_trade_at_ns for totals in store.symbols()), default=None)
        if latest is None:
            return None
        newest_ns = self._start(min(latest, now_ns))
        deleted, before_ns = 0, MIN_NS
        if self._keep.age_ns is not None:
            before_ns = self._start(min(latest, now_ns) - self._keep.age_ns)
            deleted = store.prune(before_ns)
        if self._keep.size_bytes is not None:
            while self._used_bytes(store) > self._keep.size_bytes:
                oldest_ns = _oldest_ns(store)
                if oldest_ns is None or oldest_ns >= newest_ns:
                    log.warning("%s: its latest session alone exceeds `keep`", store.address)
                    break
                before_ns = max(before_ns, self._start(oldest_ns, after=1))
                deleted += store.prune(before_ns)
        return Pruned(deleted, before_ns) if deleted else None

    def _start(self, ts_ns: int, after: int = 0) -> int:
        """Return when the session of a time begins, or the one so many after it."""
        return _start(self._sessions, ts_ns, after)

    def _used_bytes(self, store: Store) -> int:
        used = store.used_bytes()
        if used is None:
            raise UsageError(f"{store.address}: keeps trades by age; leave the size out of `keep`")
        return used


@contextlib.asynccontextmanager
async def retained(url: str, keep: str, session: str) -> AsyncIterator[None]:
    """Delete what a store need not keep, again and again within the block.

    A store that cannot be written is tried again later.

    Parameters
    ----------
    url : str
        Of the store; empty, nothing is deleted.
    keep : str
        As `Keep.parse`; empty, nothing is deleted.
    session : str
        As of `Retention`.

    Raises
    ------
    UsageError
        As `Keep.parse` and `Retention`.
    """
    if not url or not keep:
        yield
        return
    retention = Retention(Keep.parse(keep), session)
    task = asyncio.create_task(_repeat(retention, url))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _repeat(retention: Retention, url: str) -> None:
    while True:
        await asyncio.to_thread(_apply, retention, url)
        await asyncio.sleep(_EVERY_S)


def _apply(retention: Retention, url: str) -> None:
    try:
        with open_store(url) as store:
            pruned = retention.apply(store, time.time_ns())
            if pruned is not None:
                log.info("%s: %s", store.address, described(pruned))
    except (StoreError, UsageError) as error:
        log.warning("nothing is deleted: %s", error)


def described(pruned: Pruned | None) -> str:
    """Return what was deleted in words."""
    if pruned is None:
        return "deleted nothing"
    return f"deleted {counted(pruned.trades, 'trade')} of before {format_time(pruned.before_ns)}"


def _oldest_ns(store: Store) -> int | None:
    """Return the exchange time of the earliest trade."""
    first = TradeKey(MIN_NS, 0, 0)
    pages = (store.page_after(totals.symbol, 1, first) for totals in store.symbols())
    return min((page.key(0).timestamp_ns for page in pages if len(page)), default=None)


def _start(sessions: Buckets, ts_ns: int, after: int) -> int:
    return int(sessions.starts(sessions.numbers(np.array([ts_ns])) + after)[0])
