"""All clients of the VWAP feed: what changes is encoded once, and handed to those who want it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from mdtool.services.vwap.board import Board
from mdtool.services.vwap.client import Client


class Clients:
    """Who is connected, and which symbols each of them wants.

    What changes within one turn of the event loop goes out at its end, in one write a client. Where
    there are so many that this takes a while, as long a while is left for what comes: more changes
    then go out at once, and nobody is told of what is long past.

    Parameters
    ----------
    board : Board
        Where states come from.
    max_clients : int
        How many there may be.
    patience_s : float
        How long one of them may read nothing.
    """

    def __init__(self, board: Board, max_clients: int, patience_s: float) -> None:
        self.patience_s = patience_s
        self._board = board
        self._max_clients = max_clients
        self._of_all: set[Client] = set()
        self._of_symbol: dict[str, set[Client]] = {}
        self._n_narrowed = 0
        self._changed: dict[str, None] = {}
        self._rests_until_s = 0.0

    def __len__(self) -> int:
        return len(self._of_all) + self._n_narrowed

    def connect(self, client: Client) -> bool:
        """Take a client, which wants all symbols; return False where there is no room."""
        if len(self) >= self._max_clients:
            return False
        self._of_all.add(client)
        return True

    def disconnect(self, client: Client) -> None:
        """Forget a client."""
        self._remove(client)

    def narrow(self, client: Client, wanted: frozenset[str] | None) -> None:
        """Take note that a client wants these symbols from now on, None for all."""
        self._remove(client)
        if wanted is None:
            self._of_all.add(client)
            return
        self._n_narrowed += 1
        for symbol in wanted:
            self._of_symbol.setdefault(symbol, set()).add(client)

    def lines(self, symbols: Iterable[str] | None) -> bytes:
        """Return the last states of symbols, None for all, a line each."""
        wanted = self._board.symbols() if symbols is None else symbols
        return b"".join(map(self._board.line, wanted))

    def publish(self, symbols: Iterable[str]) -> None:
        """Tell those who want them that the states of these symbols changed."""
        if not len(self):
            return
        if not self._changed:
            loop = asyncio.get_running_loop()
            if self._rests_until_s > loop.time():
                loop.call_at(self._rests_until_s, self._deliver)
            else:
                loop.call_soon(self._deliver)
        self._changed.update(dict.fromkeys(symbols))

    def close(self) -> None:
        """Close every connection."""
        narrowed = set().union(*self._of_symbol.values())
        for client in [*self._of_all, *narrowed]:
            client.close()

    def _deliver(self) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        changed, self._changed = self._changed, {}
        self._tell_all(changed)
        self._tell_narrowed(changed)
        now_s = loop.time()
        self._rests_until_s = now_s + now_s - began_s

    def _tell_all(self, changed: Iterable[str]) -> None:
        if self._of_all:
            lines = self.lines(changed)
            for client in [*self._of_all]:
                client.tell(lines, changed)

    def _tell_narrowed(self, changed: Iterable[str]) -> None:
        if not self._n_narrowed:
            return
        wanted: dict[Client, list[str]] = {}
        for symbol in changed:
            for client in self._of_symbol.get(symbol, ()):
                wanted.setdefault(client, []).append(symbol)
        for client, symbols in wanted.items():
            client.tell(self.lines(symbols), symbols)

    def _remove(self, client: Client) -> None:
        if client.wanted is None:
            self._of_all.discard(client)
            return
        self._n_narrowed -= 1
        for symbol in client.wanted:
            readers = self._of_symbol[symbol]
            readers.discard(client)
            if not readers:
                del self._of_symbol[symbol]
