"""The status of a processing and its books, for JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from mdtool.core.stream_warnings import counts_of
from mdtool.core.units import format_price, format_time
from mdtool.engine.book.snapshot import Snapshot
from mdtool.engine.book.view import BookView, busiest, totals, views
from mdtool.services.book.processing import Processing
from mdtool.services.book.reader import Shown

SHOWN_BOOKS: Final = 100
"""A status lists so many books: those with the most records."""


def state_of(processing: Processing | None) -> str:
    """Return what a processing is doing, in a word."""
    if processing is None:
        return "idle"
    if processing.is_stopped:
        return "stopped"
    if processing.error is not None:
        return "failed"
    if processing.is_over:
        return "done"
    if processing.is_connected:
        return "waiting" if processing.stream is None else "processing"
    return "connecting" if processing.stream is None else "reconnecting"


def health_of(processing: Processing | None) -> dict[str, Any]:
    """Return what it is doing, and whether its books can be trusted."""
    health: dict[str, Any] = {"state": state_of(processing)}
    if processing is not None:
        health["partial"] = totals(processing.rebuild.books).is_partial
        health["warnings"] = counts_of(processing.warnings.counts)
    return health


def status_of(processing: Processing, shown: Shown) -> dict[str, Any]:
    """Return counts, rates and totals of all books, and the busiest of those that are shown."""
    books = processing.rebuild.books
    summed = totals(books)
    selected = shown.of(processing.instruments)
    now_ns, latest_ns = time.monotonic_ns(), processing.rebuild.latest_ns
    return {
        "stream": processing.stream,
        "position": processing.position,
        "records": processing.records,
        "records_per_s": round(processing.rates.per_second(now_ns, processing.records)[0]),
        "elapsed_s": round(processing.elapsed_s, 6),
        "skipped": processing.skipped,
        "resumed": processing.resumed,
        "warnings": counts_of(processing.warnings.counts),
        "error": processing.error,
        "market_time": format_time(latest_ns) if latest_ns > 0 else None,
        "active_orders": summed.orders,
        "bid_levels": summed.bid_levels,
        "ask_levels": summed.ask_levels,
        "trades": summed.trades,
        "volume": summed.volume,
        "partial": summed.is_partial,
        "anomalies": summed.anomalies,
        "instruments": len(books),
        "books": [_of_book(processing, view) for view in busiest(books, SHOWN_BOOKS, selected)],
    }


def final_states(processing: Processing, depth: int, shown: Shown) -> Iterator[dict[str, Any]]:
    """Yield every book as it is now, between events, with the count of its records.

    `final` is whether the stream has ended, so that the book will not change any more.
    """
    selected = shown.of(processing.instruments)
    for view in views(processing.rebuild.books):
        if selected is None or selected[view.instrument]:
            yield {
                **Snapshot.of(view, depth).as_dict(_symbol_of(processing, view)),
                "last_trade": _of_trade(view),
                "records": view.records,
                "final": processing.is_over,
            }


def _of_book(processing: Processing, view: BookView) -> dict[str, Any]:
    top = Snapshot.of(view, 1).as_dict(_symbol_of(processing, view))
    return {
        "symbol": top["symbol"],
        "publisher": top["publisher"],
        "publisher_id": view.publisher_id,
        "instrument_id": view.instrument_id,
        "records": view.records,
        "active_orders": view.total_orders,
        "bid_levels": view.level_count("B"),
        "ask_levels": view.level_count("A"),
        "bbo": top["bbo"],
        "last_trade": _of_trade(view),
        "trades": view.trades,
        "volume": view.volume,
        "partial": view.is_partial,
        "anomalies": view.anomalies,
    }


def _of_trade(view: BookView) -> dict[str, Any] | None:
    trade = view.last_trade
    if trade is None:
        return None
    return {
        "price": format_price(trade.price) or None,
        "size": trade.size,
        "side": trade.side,
        "timestamp": format_time(trade.ts_event) if trade.ts_event >= 0 else None,
    }


def _symbol_of(processing: Processing, view: BookView) -> str:
    return processing.instruments[view.instrument].text
