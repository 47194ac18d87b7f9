"""The table of blocks, in layers: within one of them no two blocks of a symbol overlap.

What is written goes into the first layer with room between its first and its last key, so trades in
order are all in layer 0, and a page of them is read from one block. Where no layer has room, the
last ones are merged there, until what remains is more than twice as much as was merged: a trade is
rewritten as often as the logarithm of how many writes overlap it, and a page never reads more than
`LAYERS` blocks beside those that it consists of.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, Final, Protocol
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.stores.port import MAX_NS, TradeKey
from mdtool.adapters.stores.sql import in_order
from mdtool.adapters.stores.sqlite.blocks import (
    COLUMNS,
    KEY_COLUMNS,
    MAX_TRADES,
    Block,
    count_below,
    row_of,
)

LAYERS: Final = 16
LEAST_LAYERS: Final = 8
"""Each write merges above a number of layers of its own, so that they do not all do so at once."""
MIN_TRADES: Final = 64
"""Of a symbol in one write that make a block; fewer are rows, which cost less."""

_KEY: Final = "timestamp", "stream", "sequence"
_FIRST: Final = ", ".join(f"first_{name}" for name in _KEY)
_LAST: Final = ", ".join(f"last_{name}" for name in _KEY)
_BLOCK: Final = f"number, symbol, {_FIRST}, {_LAST}, count, checksum, {', '.join(COLUMNS)}"
_IN_LAYER: Final = "FROM trade_blocks WHERE symbol = ? AND layer = ?"
_UPWARDS: Final = f"SELECT {_BLOCK} {_IN_LAYER} AND ({_LAST}) >= (?, ?, ?) ORDER BY {_LAST}"
_DOWNWARDS: Final = (
    f"SELECT {_BLOCK} {_IN_LAYER} AND ({_LAST}) < (?, ?, ?) "
    f"ORDER BY {_LAST.replace(',', ' DESC,')} DESC"
)
_NEXT_FIRST: Final = (
    f"SELECT {_FIRST} {_IN_LAYER} AND ({_LAST}) >= (?, ?, ?) ORDER BY {_LAST} LIMIT 1"
)
_TOP_LAYER: Final = "SELECT max(layer) FROM trade_blocks WHERE symbol = ?"
_INSERT: Final = (
    f"INSERT INTO trade_blocks (symbol, layer, {_FIRST}, {_LAST}, count, checksum, "  # noqa: S608
    f"{', '.join(COLUMNS)}) VALUES ({', '.join('?' * (10 + len(COLUMNS)))})"
)
_DELETE: Final = "DELETE FROM trade_blocks WHERE number = ?"
_OLD: Final = f"SELECT number, count {_IN_LAYER} AND last_timestamp < ? ORDER BY {_LAST} LIMIT ?"
_OLD_BLOCKS: Final = 1_000
"""Blocks deleted in one transaction."""
_NUMBERS: Final = "SELECT number FROM trade_blocks ORDER BY first_timestamp"
_BY_NUMBER: Final = f"SELECT {_BLOCK} FROM trade_blocks WHERE number = ?"  # noqa: S608
_MERGED_SHARE: Final = 2

Trades = NDArray[np.int64]
"""int64[6, n], the columns of blocks, in order of their keys."""


class Session(Protocol):
    """An open file."""

    def execute(self, statement: str, values: Any = (), /) -> Any:
        """Execute a statement; return what iterates over its rows."""
        ...

    def executemany(self, statement: str, values: Any, /) -> Any:
        """Execute a statement with each of some values."""
        ...


def put(session: Session, symbol: int, trades: Trades) -> None:
    """Write trades of a symbol, none of which is stored, as blocks."""
    first, last = _bounds(trades)
    layers = LEAST_LAYERS + crc32(repr(first).encode()) % (LAYERS - LEAST_LAYERS + 1)
    for layer in range(layers):
        if _has_room(session, symbol, layer, first, last):
            _insert(session, symbol, layer, trades)
            return
    _merge(session, symbol, layers, trades)


def has_room(session: Session, symbol: int, trades: Trades) -> bool:
    """Return whether no block of layer 0 lies, even in part, among the trades."""
    return _has_room(session, symbol, 0, *_bounds(trades))


def trades_above(
    session: Session, symbol: int, limit: int, after: TradeKey, end_ns: int = MAX_NS
) -> Trades:
    """Return trades with keys above `after` and times before `end_ns`.

    They are unordered, and have the first `limit` among them, if there are that many.
    """
    least, end = after._replace(sequence=after.sequence + 1), TradeKey(end_ns, 0, 0)
    layers = [_from(session, symbol, layer, least, end) for layer in _layers(session, symbol)]
    parts: list[Trades] = []
    passed, open_parts = 0, list[tuple[TradeKey, int]]()
    for block in heapq.merge(*layers, key=lambda block: block.first):
        passed += sum(count for key, count in open_parts if key < block.first)
        if passed >= limit:
            break
        open_parts = [part for part in open_parts if part[0] >= block.first]
        parts.append(block.trades(block.below(least), block.below(end)))
        open_parts.append((block.last, parts[-1].shape[1]))
        if len(layers) == 1 and passed + parts[-1].shape[1] >= limit:
            break
    return _joined(parts)


def trades_below(session: Session, symbol: int, limit: int, before: TradeKey) -> Trades:
    """Return trades with keys below `before`, unordered, with the last `limit` among them."""
    layers = [_until(session, symbol, layer, before) for layer in _layers(session, symbol)]
    parts: list[Trades] = []
    passed, open_parts = 0, list[tuple[TradeKey, int]]()
    for block in heapq.merge(*layers, key=lambda block: block.last, reverse=True):
        passed += sum(count for key, count in open_parts if key > block.last)
        if passed >= limit:
            break
        open_parts = [part for part in open_parts if part[0] <= block.last]
        end = block.below(before)
        parts.append(block.trades(max(0, end - limit), end))
        open_parts.append((block.first, parts[-1].shape[1]))
        if len(layers) == 1 and passed + parts[-1].shape[1] >= limit:
            break
    return _joined(parts)


def keys_among(session: Session, symbol: int, trades: Trades) -> Trades:
    """Return the keys, int64[3, n], of the blocks within whose times some of the trades are."""
    first, last = _bounds(trades)
    times = trades[0]
    found = [np.empty((KEY_COLUMNS, 0), np.int64)]
    for layer in _layers(session, symbol):
        for block in _from(
            session, symbol, layer, first, last._replace(sequence=last.sequence + 1)
        ):
            begin = np.searchsorted(times, block.first.timestamp_ns)
            if begin < np.searchsorted(times, block.last.timestamp_ns, "right"):
                found.append(block.key_columns())
    return np.concatenate(found, axis=1)


def delete_before(session: Session, symbol: int, before_ns: int) -> int:
    """Delete the next trades of a symbol with exchange times before that; return how many.

    It is called again until there are none.
    """
    key, deleted = TradeKey(before_ns, 0, 0), 0
    for layer in _layers(session, symbol):
        old = session.execute(_OLD, (symbol, layer, before_ns, _OLD_BLOCKS)).fetchall()
        session.executemany(_DELETE, [(number,) for number, _ in old])
        deleted += sum(count for _, count in old)
        if len(old) < _OLD_BLOCKS:
            deleted += _cut_block(session, symbol, layer, key)
    return deleted


def _cut_block(session: Session, symbol: int, layer: int, key: TradeKey) -> int:
    """Delete what is below a key in the one block of a layer that has more; return how much."""
    for row in session.execute(f"{_UPWARDS} LIMIT 1", (symbol, layer, *key)):
        block = Block.of_row(row)
        below = block.below(key)
        if below:
            session.execute(_DELETE, (block.number,))
            _insert(session, symbol, layer, block.trades(below))
        return below
    return 0


def every(session: Session) -> Iterator[Block]:
    """Yield all blocks, those of early times first."""
    for (number,) in session.execute(_NUMBERS).fetchall():
        for row in session.execute(_BY_NUMBER, (number,)):
            yield Block.of_row(row)


def _layers(session: Session, symbol: int) -> range:
    ((top,),) = session.execute(_TOP_LAYER, (symbol,))
    return range(0 if top is None else top + 1)


def _has_room(session: Session, symbol: int, layer: int, first: TradeKey, last: TradeKey) -> bool:
    for row in session.execute(_NEXT_FIRST, (symbol, layer, *first)):
        return TradeKey(*row) > last
    return True


def _from(
    session: Session, symbol: int, layer: int, least: TradeKey, end: TradeKey
) -> Iterator[Block]:
    """Yield the blocks of a layer with keys from `least` to below `end`, upwards."""
    for row in session.execute(_UPWARDS, (symbol, layer, *least)):
        block = Block.of_row(row)
        if block.first >= end:
            return
        yield block


def _until(session: Session, symbol: int, layer: int, before: TradeKey) -> Iterator[Block]:
    """Yield the blocks of a layer with keys below `before`, downwards."""
    for row in session.execute(f"{_UPWARDS} LIMIT 1", (symbol, layer, *before)):
        block = Block.of_row(row)
        if block.first < before:
            yield block
    for row in session.execute(_DOWNWARDS, (symbol, layer, *before)):
        yield Block.of_row(row)


def _insert(session: Session, symbol: int, layer: int, trades: Trades) -> None:
    parts = (
        trades[:, begin : begin + MAX_TRADES] for begin in range(0, trades.shape[1], MAX_TRADES)
    )
    session.executemany(_INSERT, ((symbol, layer, *row_of(part)) for part in parts))


def _merge(session: Session, symbol: int, layers: int, trades: Trades) -> None:
    """Write trades where no layer has room, with what the last layers have among them."""
    first, last = _bounds(trades)
    end = last._replace(sequence=last.sequence + 1)
    parts, count = [trades], trades.shape[1]
    for layer in reversed(range(layers)):
        blocks = list(_from(session, symbol, layer, first, end))
        in_blocks = sum(block.count for block in blocks)
        if len(parts) > 1 and in_blocks > _MERGED_SHARE * count:
            break
        session.executemany(_DELETE, [(block.number,) for block in blocks])
        stored = np.concatenate([block.trades() for block in blocks], axis=1)
        begin, stop = count_below(stored, first), count_below(stored, end)
        for rest in (stored[:, :begin], stored[:, stop:]):
            _insert(session, symbol, layer, rest)
        parts.append(stored[:, begin:stop])
        count += stop - begin
        target = layer
    parts.sort(key=lambda part: int(part[1, 0]) if part.shape[1] else 0)  # streams of one time
    _insert(session, symbol, target, in_order(np.concatenate(parts, axis=1), KEY_COLUMNS))


def _bounds(trades: Trades) -> tuple[TradeKey, TradeKey]:
    return (
        TradeKey(*trades[:KEY_COLUMNS, 0].tolist()),
        TradeKey(*trades[:KEY_COLUMNS, -1].tolist()),
    )


def _joined(parts: list[Trades]) -> Trades:
    return np.concatenate([np.empty((len(COLUMNS), 0), np.int64), *parts], axis=1)
