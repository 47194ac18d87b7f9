"""Digests of files, streams, stores and running gateways."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import aiohttp
import numpy as np
from yarl import URL

from mdtool.adapters.dbn_files import open_merged
from mdtool.adapters.dbn_select import Selection, selected
from mdtool.adapters.identity.config import bearer_header
from mdtool.adapters.stores import open_history
from mdtool.core.dtypes import MBO, MBP10
from mdtool.core.errors import CheckError, InputError, PeerError
from mdtool.core.symbols import SymbolTable
from mdtool.core.tcp import reason_of
from mdtool.core.tls import http_options
from mdtool.core.trades import NamedTrades, Trades
from mdtool.core.units import parse_price, parse_time
from mdtool.engine.book.state import Books
from mdtool.engine.digest import BookDigest, SymbolDigest, TradeDigest, differences
from mdtool.services.send.ticks import open_ticks

_DEPTH: Final = 10
_PAGE: Final = 10_000

_Rows: TypeAlias = Sequence[dict[str, Any]]
Progress = Callable[[int], None]
"""Called now and then with the number of rows so far."""


def digest_trades(
    paths: Sequence[str],
    selection: Selection | None = None,
    schema: str | None = None,
    progress: Progress = lambda _rows: None,
) -> TradeDigest:
    """Return the digest of the trades of files or standard input: DBN, or JSON lines.

    Raises
    ------
    UsageError, InputError
        As `open_ticks`.
    """
    digest, rows = TradeDigest(), 0
    with contextlib.closing(open_ticks(paths, selection, schema=schema, any_price=True)) as ticks:
        for batch in ticks:
            digest.take(batch)
            rows += len(batch)
            progress(rows)
    return digest


def digest_books(
    paths: Sequence[str],
    selection: Selection | None = None,
    progress: Progress = lambda _rows: None,
) -> BookDigest:
    """Return the digest of the book states that MBO makes, or MBP-10 shows.

    Raises
    ------
    UsageError, InputError
        As `open_merged`, or when there is neither.
    """
    digest, books, rows = BookDigest(), Books(), 0
    with selected(open_merged(paths), selection) as source:
        for batch in source:
            if batch.records.dtype == MBP10:
                digest.take(batch)
            elif batch.records.dtype == MBO:
                for made in books.events(batch, _DEPTH):
                    if len(made):
                        digest.take(made)
            else:
                continue
            rows += len(batch)
            progress(rows)
        if not rows:
            raise InputError(f"{source.name}: has no MBO or MBP-10 records: no book has a state")
    return digest


def digest_store(url: str, progress: Progress = lambda _rows: None) -> TradeDigest:
    """Return the digest of the trades in a store.

    Raises
    ------
    ConfigError, StoreUnavailableError
        As `open_history`, and its methods.
    """
    digest, rows = TradeDigest(), 0
    with open_history(url) as history:
        for totals in history.symbols():
            table = SymbolTable([totals.symbol])
            for page in history.trades(totals.symbol):
                digest.take(NamedTrades(table, page.trades))
                rows += len(page.trades)
                progress(rows)
    return digest


async def digest_gateway(address: str, symbols: Sequence[str], token: str = "") -> TradeDigest:
    """Return the digest of the trades of some symbols that a gateway serves.

    Parameters
    ----------
    address : str
        `HOST:PORT`.
    symbols : sequence of str
    token : str, optional
        By which the client authenticates.

    Raises
    ------
    PeerError
        When it cannot be reached, or answers with an error.
    """
    digest = TradeDigest()
    async with _rest(address, token) as pages:
        for symbol in symbols:
            async for rows in pages(f"trades/{quote(symbol, safe='')}", order="asc"):
                digest.take(trades_of_rows(symbol, rows))
    return digest


async def _symbols(address: str, token: str) -> list[str]:
    """Return all symbols that a gateway knows.

    Raises
    ------
    PeerError
        As `digest_gateway`.
    """
    async with _rest(address, token) as pages:
        return [row["symbol"] async for rows in pages("symbols") for row in rows]


def trades_of_rows(symbol: str, rows: _Rows) -> NamedTrades:
    """Return rows of the feed of trades, as REST and `/stream` have them, as columns."""
    times = np.array([parse_time(row["timestamp"]) for row in rows], np.int64)
    return NamedTrades(
        SymbolTable([symbol]),
        Trades(
            np.zeros(len(rows), np.uint32),
            np.array([parse_price(row["price"]) for row in rows], np.int64),
            np.array([int(row["size"]) for row in rows], np.int64),
            times,
            times,
        ),
    )


async def check_gateway(address: str, expected: TradeDigest, token: str = "") -> SymbolDigest:
    """Compare all trades that a gateway serves with those expected; return their digest.

    Raises
    ------
    PeerError
        As `digest_gateway`.
    CheckError
        When they differ.
    """
    symbols = dict.fromkeys([*expected.symbols, *await _symbols(address, token)])
    served = await digest_gateway(address, list(symbols), token)
    found = differences(expected.by_symbol(), served.by_symbol())
    if found:
        more = f" and {len(found) - 1} other symbols" if len(found) > 1 else ""
        raise CheckError(
            f"{address}: serves other trades than expected ({found[0]}{more}); without a store it "
            "has the latest of a symbol only"
        )
    return served.total()


@contextlib.asynccontextmanager
async def _rest(address: str, token: str) -> AsyncIterator[Callable[..., AsyncIterator[_Rows]]]:
    """Yield a function that requests all pages of a path of REST version 2."""
    tls = http_options("gateway", address)
    url = f"{'https' if tls else 'http'}://{address}"
    async with aiohttp.ClientSession(url, headers=bearer_header(token)) as http:
        get = functools.partial(http.get, **tls)

        async def pages(path: str, **parameters: str) -> AsyncIterator[_Rows]:
            query = {"limit": str(_PAGE), **parameters}
            while True:
                rows, after = await _page(get, address, path, query)
                if rows:
                    yield rows
                if after is None:
                    return
                query["cursor"] = after

        yield pages


async def _page(
    get: Callable[..., Any], address: str, path: str, parameters: Mapping[str, str]
) -> tuple[_Rows, str | None]:
    """Return a page, and the cursor of the next; none of an unknown symbol."""
    try:
        url = URL(f"/api/v2/{path}", encoded=True)
        async with get(url, params=parameters) as answer:
            envelope = await answer.json()
            if answer.status == HTTPStatus.NOT_FOUND:
                return [], None
            if error := envelope["error"]:
                raise PeerError(f"{address}: {error['message']}")
            return envelope["data"], envelope["next"]
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        raise PeerError(f"{address}: {reason}; is mdtool gateway running there?") from error
