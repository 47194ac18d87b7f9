"""Reads a store in MongoDB: pages of trades and bars by their keys, and totals."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.stores.errors import StoreFormatError, StoreUnavailableError
from mdtool.adapters.stores.mongodb.connection import Connection, Documents
from mdtool.adapters.stores.mongodb.documents import BARS, TRADE_KEYS, TRADES, Layout
from mdtool.adapters.stores.port import (
    MAX_NS,
    MIN_NS,
    SavedStream,
    SymbolTotals,
    TradeKey,
    TradePage,
    WrongTotals,
)
from mdtool.engine.saved_state import SAVED_BAR

VERSION: Final = 1
STORE: Final = {"_id": "store"}
"""The document of the collection `market` by which every step is committed."""
PAGE_TRADES: Final = 1 << 16
_BATCH: Final = 1 << 14
_ABOVE_ALL: Final = TradeKey(MAX_NS, 0, 0)
_TRIES: Final = 100
_PAUSE_S: Final = 0.02


class Reader:
    """Reads a store; methods as in `TradeHistory`.

    One thread at a time may call them, except for `interrupt`.

    Parameters
    ----------
    connection : Connection
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def address(self) -> str:
        """The name of the store in messages, without secrets."""
        return self._connection.address

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()

    def symbols(self) -> list[SymbolTotals]:
        """Return the symbols that have trades, in order."""

        def symbols(database: Documents) -> list[SymbolTotals]:
            found = database.symbols.find({"trade_count": {"$gt": 0}}, _TOTALS).sort("_id")
            return [_totals(each) for each in found]

        return self._connection.read(symbols)

    def has(self, symbol: str) -> bool:
        """Return whether the symbol has trades."""
        found = {"_id": symbol, "trade_count": {"$gt": 0}}
        return self._connection.read(
            lambda database: database.symbols.find_one(found, {"_id": 1}) is not None
        )

    def page(self, symbol: str, limit: int, before: TradeKey | None = None) -> TradePage:
        """Return at most `limit` trades whose key is below `before`, newest first."""
        return self._page(symbol, limit, TradeKey(MIN_NS, 0, 0), before or _ABOVE_ALL, -1)

    def page_after(
        self, symbol: str, limit: int, after: TradeKey, end_ns: int = MAX_NS
    ) -> TradePage:
        """Return at most `limit` trades whose key is above `after`, oldest first."""
        above = TradeKey(*after[:2], after.sequence + 1)
        return self._page(symbol, limit, above, TradeKey(end_ns, 0, 0), 1)

    def trades(
        self, symbol: str, start_ns: int = MIN_NS, end_ns: int = MAX_NS
    ) -> Iterator[TradePage]:
        """Yield all trades of a symbol, oldest first, in pages that are not empty."""
        after = TradeKey(start_ns, 0, 0)  # streams have numbers from 1
        while True:
            page = self.page_after(symbol, PAGE_TRADES, after, end_ns)
            if len(page):
                yield page
            if len(page) < PAGE_TRADES:
                return
            after = page.key(-1)

    def streams(self) -> list[SavedStream]:
        """Return the streams, in order of their numbers."""

        def streams(database: Documents) -> list[SavedStream]:
            found = database.streams.find({"number": {"$gt": 0}}).sort("number")
            return [SavedStream(each["number"], each["_id"], each["next"]) for each in found]

        return self._connection.read(streams)

    def sequences(self) -> NDArray[np.int64]:
        """Return the stream, the first and the last sequence of runs of trades, int64[3, n]."""

        def sequences(database: Documents) -> NDArray[np.int64]:
            parts = [keys[2:] for keys in self.batches(database.trades, TRADE_KEYS, {})]
            keys = np.concatenate(parts, axis=1) if parts else np.empty((2, 0), np.int64)
            keys = keys[:, np.lexsort(keys[::-1])]
            stream, sequence = keys
            is_first = np.ones(len(stream), np.bool_)
            is_first[1:] = (stream[1:] != stream[:-1]) | (sequence[1:] > sequence[:-1] + 1)
            first = np.flatnonzero(is_first)
            last = np.append(first[1:], len(stream))[: len(first)] - 1
            return np.stack([stream[first], sequence[first], sequence[last]])

        return self._connection.read(sequences)

    def recount(self) -> list[WrongTotals]:
        """Read all trades, and return the symbols whose totals are not theirs, in order."""
        return self._connection.read(lambda database: list(self._wrong(database).values()))

    def bars(
        self, symbol: str, interval_ns: int, limit: int, before_ns: int = 0
    ) -> NDArray[np.void]:
        """Return at most `limit` closed bars that start before `before_ns`, newest first."""
        return self._bars(symbol, interval_ns, limit, (MIN_NS, before_ns or MAX_NS), -1)

    def bars_from(
        self, symbol: str, interval_ns: int, limit: int, from_ns: int
    ) -> NDArray[np.void]:
        """Return at most `limit` closed bars that start at `from_ns` or later, oldest first."""
        return self._bars(symbol, interval_ns, limit, (from_ns, MAX_NS), 1)

    def interrupt(self) -> None:
        """End what another thread is reading at this moment, with StoreInterruptedError."""
        self._connection.interrupt()

    def _page(
        self, symbol: str, limit: int, first: TradeKey, end: TradeKey, order: int
    ) -> TradePage:
        """Return trades from one key to before another."""

        def page(database: Documents) -> NDArray[np.int64]:
            number = _number(database, symbol) if limit > 0 else None
            if number is None:
                return np.empty((7, 0), np.int64)
            between = within(TRADES, (number, *first), (number, *end))
            return self._found(database.trades, TRADES, between, order, limit)

        return TradePage.of(self._connection.read(page)[1:])

    def _bars(
        self, symbol: str, interval_ns: int, limit: int, starts: tuple[int, int], order: int
    ) -> NDArray[np.void]:
        def bars(database: Documents) -> NDArray[np.void]:
            number = _number(database, symbol) if limit > 0 else None
            if number is None:
                return np.empty(0, SAVED_BAR)
            first, end = ((number, interval_ns, start) for start in starts)
            found = self._found(database.bars, BARS, within(BARS, first, end), order, limit)
            bars = saved_bars(found)
            bars["symbol"] = 0
            return bars

        return self._connection.read(bars)

    def batches(
        self,
        collection: Any,
        layout: Layout,
        which: Mapping[str, Any],
        order: int = 0,
        limit: int = 0,
    ) -> Iterator[NDArray[np.int64]]:
        """Yield documents of a layout, int64[k, n], in order of their keys if one is given.

        Raises
        ------
        StoreFormatError
            When some are of another layout.
        """
        cursor = collection.find_raw_batches(
            which,
            projection={"_id": 1} if layout is TRADE_KEYS else None,
            sort=[("_id", order)] if order else None,
            limit=limit,
            batch_size=_BATCH,
        )
        try:
            for batch in cursor:
                yield layout.decode(batch)
        except ValueError as error:
            raise self.damaged(str(error)) from error

    def _found(
        self, collection: Any, layout: Layout, which: Mapping[str, Any], order: int, limit: int = 0
    ) -> NDArray[np.int64]:
        return joined(layout, self.batches(collection, layout, which, order, limit))

    def _wrong(self, database: Documents) -> dict[str, WrongTotals]:
        """Return the symbols whose totals are not those of their trades, in order.

        Trades are written before totals. So what differs is counted again by itself, until nothing
        is written to the symbol meanwhile.
        """
        counted: dict[int, tuple[int, int]] = {}
        for keys in self.batches(database.trades, TRADE_KEYS, {}):
            _count(counted, keys)
        stored = list(database.symbols.find({}, _TOTALS).sort("_id"))
        if counted.keys() - {each["number"] for each in stored}:
            raise self.damaged("trades of no symbol")
        wrong = {}
        for each in stored:
            if _totals(each)[1:3] != counted.get(each["number"], (0, 0)):
                found = self._counted_again(database, each)
                if found.stored != found.counted:
                    wrong[each["_id"]] = found
        return wrong

    def _counted_again(self, database: Documents, before: Mapping[str, Any]) -> WrongTotals:
        number = before["number"]
        which = within(TRADES, (number,), (number + 1,))
        for _ in range(_TRIES):
            counted: dict[int, tuple[int, int]] = {}
            for keys in self.batches(database.trades, TRADE_KEYS, which):
                _count(counted, keys)
            store = database.market.find_one(STORE, {"is_pending": 1}) or {}
            after = database.symbols.find_one({"_id": before["_id"]}, _TOTALS)
            if after is not None and after == before and not store.get("is_pending"):
                stored = SymbolTotals(*_totals(after)[:3])
                return WrongTotals(
                    stored, SymbolTotals(stored.symbol, *counted.get(number, (0, 0)))
                )
            before = after or before
            time.sleep(_PAUSE_S)
        raise StoreUnavailableError(
            f"{self.address}: {before['_id']} is written without a pause; count its trades later"
        )

    def damaged(self, reason: str) -> StoreFormatError:
        """Return the error of documents that this program did not write."""
        return StoreFormatError(f"{self.address}: is damaged; restore it from a copy ({reason})")


_TOTALS: Final = {"number": 1, "trade_count": 1, "last_trade_at": 1, "lot": 1, "step": 1}


def check(database: Documents, address: str) -> None:
    """Check that a database has a store that this program can read.

    Raises
    ------
    StoreUnavailableError
        When it has none.
    StoreFormatError
        When it is of another version.
    """
    store = database.market.find_one(STORE, {"version": 1})
    if store is None:
        raise StoreUnavailableError(f"{address}: there is no store yet")
    if store.get("version") != VERSION:
        raise StoreFormatError(
            f"{address}: its documents are of version {store.get('version')}, and this mdtool "
            f"knows {VERSION}; update mdtool, or name another database"
        )


def within(layout: Layout, first: Sequence[int], end: Sequence[int]) -> dict[str, Any]:
    """Return the filter of documents from one key to before another."""
    return {"_id": {"$gte": layout.key(*first), "$lt": layout.key(*end)}}


def joined(layout: Layout, batches: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return batches as one, int64[k, n]."""
    return np.concatenate([layout.decode(b""), *batches], axis=1)


def saved_bars(columns: NDArray[np.int64]) -> NDArray[np.void]:
    """Return closed bars, of columns as `BARS` has them; `symbol` is the number."""
    bars = np.zeros(columns.shape[1], SAVED_BAR)
    bars["symbol"], bars["interval_ns"], bars["start_ns"] = columns[:3]
    for name, column in zip((SAVED_BAR.names or ())[4:], columns[3:], strict=False):
        bars[name] = column
    return bars


def _number(database: Documents, symbol: str) -> int | None:
    found = database.symbols.find_one({"_id": symbol}, {"number": 1})
    return None if found is None else int(found["number"])


def _totals(document: Mapping[str, Any]) -> SymbolTotals:
    count = document["trade_count"]
    latest_ns = document["last_trade_at"] if count else 0
    return SymbolTotals(document["_id"], count, latest_ns, document["lot"])


def _count(counted: dict[int, tuple[int, int]], keys: NDArray[np.int64]) -> None:
    """Add trades to how many each symbol has and the latest time of them, by its number."""
    number, place, count = np.unique(keys[0], return_inverse=True, return_counts=True)
    latest = np.full(len(number), MIN_NS)
    np.maximum.at(latest, place, keys[1])
    for each, more, at_ns in zip(number.tolist(), count.tolist(), latest.tolist(), strict=True):
        before, before_ns = counted.get(each, (0, MIN_NS))
        counted[each] = before + more, max(before_ns, at_ns)
