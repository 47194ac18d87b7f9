"""What the gateway knows of the market: each symbol's latest aggregate, and how fresh it is."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.core.symbols import SymbolTable
from mdtool.services.gateway.encoding import Aggregate, encode_rest
from mdtool.services.gateway.listing import Listing
from mdtool.wire.batches import Updates

_COLUMNS: Final = ("open", "high", "low", "close", "volume", "timestamp")
_ROW: Final = np.dtype([*((name, np.int64) for name in _COLUMNS), ("stale", np.bool_)])
_UNKNOWN: Final = -1


class MarketState:
    """The latest aggregates, which outlive the aggregator and are then marked stale.

    An aggregate is fresh when the aggregator has sent it in the present connection: one that came
    back without a symbol that it once had leaves that symbol stale.

    Attributes
    ----------
    symbols : SymbolTable
        Every symbol that has an aggregate; its indices are what the methods take and return.
    is_live : bool
        Whether the aggregator has spoken and was not lost since.
    listing : Listing
        All aggregates as REST answers them, by symbol.
    """

    def __init__(self) -> None:
        self.symbols = SymbolTable()
        self.is_live = False
        self._rows = np.zeros(0, _ROW)
        self._peer_symbols = SymbolTable()
        self._from_peer = np.zeros(0, np.intp)
        """This state's index of each of the peer's, shape (peer's symbols,)."""
        self._unmet = 0
        """How many of those are unknown still."""
        self._rest: dict[int, tuple[bytes, bool]] = {}
        """What was answered since it last changed."""
        self.listing = Listing(self._ordered, self.rest)

    def apply(self, symbols: SymbolTable, updates: Updates) -> NDArray[np.intp]:
        """Take a message of the aggregator, and return what changed, shape (n,).

        Parameters
        ----------
        symbols : SymbolTable
            What the symbol indices of `updates` mean. Another table means another connection.
        updates : Updates
            The symbols that changed, each once.
        """
        self.is_live = True
        changed = self._own(symbols, updates.symbol)
        for name in _COLUMNS:
            self._rows[name][changed] = getattr(updates, name)
        self._rows["stale"][changed] = False
        self._forget(changed)
        return changed

    def lose(self) -> NDArray[np.intp]:
        """Mark everything stale, and return what was fresh until now, shape (n,)."""
        self.is_live = False
        changed = np.flatnonzero(~self._rows["stale"])
        self._rows["stale"][changed] = True
        self._forget(changed)
        return changed

    def stale_count(self) -> int:
        """Return how many symbols are stale."""
        return int(np.count_nonzero(self._rows["stale"]))

    def aggregate(self, index: int) -> Aggregate:
        """Return the latest aggregate of a symbol."""
        return Aggregate(self.symbols[index], *self._rows[index].item())

    def rest(self, index: int) -> tuple[bytes, bool]:
        """Return the aggregate as REST answers it, and whether it is stale."""
        answer = self._rest.get(index)
        if answer is None:
            aggregate = self.aggregate(index)
            answer = self._rest[index] = (encode_rest(aggregate), aggregate.is_stale)
        return answer

    def _ordered(self) -> list[int]:
        """Return the indices of all symbols, by symbol."""
        return sorted(range(len(self.symbols)), key=self.symbols.__getitem__)

    def _forget(self, changed: NDArray[np.intp]) -> None:
        """Drop the answers that are not true any more."""
        self.listing.forget()
        if len(changed) >= len(self._rest):
            self._rest.clear()
        else:
            for index in changed.tolist():
                self._rest.pop(index, None)

    def _own(self, symbols: SymbolTable, peer: NDArray[np.uint32]) -> NDArray[np.intp]:
        """Return this state's index of each of the peer's, a new one for a symbol not met yet.

        A symbol may be in the peer's table without ever having traded; it is not known here.
        """
        if symbols is not self._peer_symbols:
            self._peer_symbols = symbols
            self._from_peer = np.zeros(0, np.intp)
            self._unmet = 0
        if unheard := len(symbols) - len(self._from_peer):
            self._from_peer = np.append(self._from_peer, np.full(unheard, _UNKNOWN, np.intp))
            self._unmet += unheard
        own = self._from_peer[peer]
        if self._unmet and len(new := peer[own == _UNKNOWN]):
            self._unmet -= len(new)
            self._from_peer[new] = [self.symbols.intern(symbols[index]) for index in new.tolist()]
            room = len(self.symbols) - len(self._rows)
            self._rows = np.append(self._rows, np.zeros(room, _ROW))
            own = self._from_peer[peer]
        return own
