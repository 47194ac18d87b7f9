"""Snapshots of order books on the terminal: ladders of a few or of a depth, else rows."""

from __future__ import annotations

from decimal import Decimal
from itertools import accumulate, islice, zip_longest
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mdtool.core.batch import Batch
from mdtool.core.instruments import Instruments
from mdtool.core.publishers import publisher_name
from mdtool.core.units import format_price, format_time
from mdtool.engine.book.snapshot import Levels, Snapshot

MAX_LADDERS: Final = 4
"""The most books that are shown as ladders where no depth is chosen; more are shown as rows."""
_GAP: Final = "  "
_COLUMNS: Final = {
    "symbol": 12,
    "timestamp": 30,
    "bid_sz": 7,
    "bid": 11,
    "ask": 11,
    "ask_sz": 7,
    "": 7,
    "levels": 9,
    "orders": 7,
}
"""The columns of the rows, and how wide each is."""
_TIME_OF_DAY: Final = 12
"""How wide the timestamp is on a narrow terminal: hours to milliseconds."""
_LEFT: Final = frozenset({"symbol", "timestamp", ""})


class SnapshotTable:
    """Writes snapshots as tables.

    Parameters
    ----------
    instruments : Instruments
        Those of the snapshots; publishers are shown where there are several.
    has_ladders : bool
        Whether up to `MAX_LADDERS` snapshots in all are shown level by level.
    is_deep : bool
        Whether all snapshots are shown level by level.
    """

    def __init__(self, instruments: Instruments, has_ladders: bool, is_deep: bool = False) -> None:
        self._instruments = instruments
        self._console = Console(highlight=False, soft_wrap=True)
        self._ladders: list[Snapshot] = []
        self._is_of_rows = False
        self._has_ladders = has_ladders
        self._is_deep = is_deep
        self._widths = _fitting(self._console.width)

    def write(self, snapshot: Snapshot) -> None:
        """Show a snapshot's row, or buffer it as long as there may be ladders."""
        self._ladders.append(snapshot)
        if self._is_deep:
            self.close()
        elif not self._has_ladders or len(self._ladders) > MAX_LADDERS:
            self._has_ladders = False
            self._show_rows()

    def write_mappings(self, mappings: Batch) -> None:
        """Do nothing: rows have symbols."""

    def flush(self) -> None:
        """Do nothing: rows are shown at once."""

    def close(self) -> None:
        """Show the ladders."""
        for snapshot in self._ladders:
            self._console.print(*self._ladder(snapshot), sep="\n", end="\n\n")
        self._ladders.clear()

    def _symbol(self, snapshot: Snapshot) -> str:
        text = self._instruments[snapshot.instrument].text
        has_several = len({instrument.publisher_id for instrument in self._instruments}) > 1
        if not has_several or not snapshot.publisher_id:
            return text
        name = publisher_name(snapshot.publisher_id)
        return f"{text} ({name or 'publisher'} {snapshot.publisher_id})"

    def _ladder(self, snapshot: Snapshot) -> tuple[Text | Table, ...]:
        title = Text.assemble((self._symbol(snapshot), "bold"), "  ", format_time(snapshot.ts_ns))
        prices = [*snapshot.bids["price"].tolist(), *snapshot.asks["price"].tolist()]
        decimals = max((_decimals(price) for price in prices), default=0)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("orders", "size", "bid", "ask", "size", "orders"):
            table.add_column(name, justify="left" if name == "ask" else "right")
        bids, asks = (_texts(levels, decimals) for levels in (snapshot.bids, snapshot.asks))
        for bid, ask in zip_longest(bids, asks, fillvalue=("", "", "")):
            (bid_count, bid_size, bid_price), (count, size, price) = bid, ask
            table.add_row(
                bid_count, bid_size, Text(bid_price, "green"), Text(price, "red"), size, count
            )
        counted = (
            f"{snapshot.total_orders:,} orders, {snapshot.bid_levels:,} bid and "
            f"{snapshot.ask_levels:,} ask levels"
        )
        return (title, table, Text(counted), *_remarks(snapshot))

    def _show_rows(self) -> None:
        if not self._is_of_rows:
            self._is_of_rows = True
            header = {name: name for name in _COLUMNS}
            self._console.print(Text(_aligned(header, self._widths), style="bold"))
        for snapshot in self._ladders:
            self._console.out(_aligned(_row(self._symbol(snapshot), snapshot), self._widths))
        self._ladders.clear()


def _remarks(snapshot: Snapshot) -> list[Text]:
    remarks = []
    if snapshot.is_partial:
        remarks.append(
            Text(
                "partial: orders from before its stream, or lost, are not in it",
                style="yellow",
            )
        )
    if snapshot.anomalies:
        kinds = (f"{count:,} {kind}" for kind, count in snapshot.anomalies.items())
        remarks.append(Text(f"anomalies: {', '.join(kinds)}", style="yellow"))
    return remarks


def _decimals(price: int) -> int:
    return len(format_price(price).partition(".")[2])


def _texts(levels: Levels, decimals: int) -> list[tuple[str, str, str]]:
    """Return count, size and price of levels, the prices with so many decimals."""
    return [
        (f"{count:,}", f"{size:,}", f"{Decimal(price).scaleb(-9):.{decimals}f}")
        for price, size, count in levels.tolist()
    ]


def _row(symbol: str, snapshot: Snapshot) -> dict[str, str]:
    (bid, bid_size), (ask, ask_size) = (
        (format_price(int(levels[0]["price"])), str(levels[0]["size"])) if len(levels) else ("", "")
        for levels in (snapshot.bids, snapshot.asks)
    )
    return {
        "symbol": symbol,
        "timestamp": format_time(snapshot.ts_ns),
        "bid_sz": bid_size,
        "bid": bid,
        "ask": ask,
        "ask_sz": ask_size,
        "": "partial" if snapshot.is_partial else "",
        "levels": f"{snapshot.bid_levels}/{snapshot.ask_levels}",
        "orders": str(snapshot.total_orders),
    }


def _fitting(width: int) -> dict[str, int]:
    """Return the widths of the first columns that fit a width, with times of day if need be."""
    if sum(_COLUMNS.values()) + len(_GAP) * (len(_COLUMNS) - 1) <= width:
        return _COLUMNS
    narrow = {**_COLUMNS, "timestamp": _TIME_OF_DAY}
    ends = accumulate(narrow.values(), lambda end, column: end + len(_GAP) + column)
    return dict(islice(narrow.items(), max(1, sum(end <= width for end in ends))))


def _aligned(texts: dict[str, str], widths: dict[str, int]) -> str:
    cells = []
    for name, width in widths.items():
        text = texts[name]
        if name == "timestamp" and width == _TIME_OF_DAY:
            text = text.partition("T")[2][:_TIME_OF_DAY] or text
        cells.append(text.ljust(width) if name in _LEFT else text.rjust(width))
    return _GAP.join(cells).rstrip()
