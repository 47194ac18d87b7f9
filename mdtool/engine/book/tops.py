"""The best prices of all books at once, as far as they are known."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from mdtool.core.units import UNDEF_PRICE
from mdtool.engine.book import kernel as k
from mdtool.engine.book.state import Books

TOP: Final = np.dtype([("key", "i8"), ("ts_recv", "i8"), ("bid", "i8"), ("ask", "i8")])
"""A book's key, packed as `instrument_id << 16 | publisher_id`, when its last record was received,
and its best prices at 1e-9."""
_UNKNOWN_BIT: Final = {"bid": 1, "ask": 2}


def tops(books: Books) -> npt.NDArray[np.void]:
    """Return the best prices of every book, in the order in which they were first met.

    Parameters
    ----------
    books : Books

    Returns
    -------
    TOP[n]
        A price is UNDEF_PRICE where the side is empty, or where a partial book does not know what
        else there is on it.
    """
    rows = books.state.books[: len(books)]
    found = np.empty(len(rows), TOP)
    found["key"] = rows[:, k.B_KEY]
    found["ts_recv"] = rows[:, k.B_TS_RECV]
    for number, name in enumerate(("bid", "ask")):
        sides = books.state.sides[number : 2 * len(rows) : 2]
        length = sides[:, k.S_LENGTH]
        is_known = (length > 0) & (rows[:, k.B_UNKNOWN_SIDES] & _UNKNOWN_BIT[name] == 0)
        best = (sides[:, k.S_START] + length - 1)[is_known]
        keys = books.state.levels[books.state.places[best], k.L_KEY]
        found[name] = UNDEF_PRICE
        found[name][is_known] = ~keys if name == "ask" else keys
    return found
