"""A word on stderr about partial books, for outputs that cannot say it themselves."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mdtool.core.instruments import Instruments
    from mdtool.engine.book.state import Books

log = logging.getLogger(__name__)

_NAMED_AT_MOST: Final = 5


class PartialNotice:
    """Names the first partial books as soon as they are met, and counts them at the end.

    Parameters
    ----------
    books : Books
    instruments : Instruments
    is_needed : bool
        Whether to speak at all.
    """

    def __init__(self, books: Books, instruments: Instruments, is_needed: bool = True) -> None:
        from mdtool.engine.book.view import PartialBooks

        self._partial = PartialBooks()
        self._books = books
        self._instruments = instruments
        self._is_needed = is_needed

    def look(self) -> None:
        """Speak of books that have turned out to be partial."""
        if not self._is_needed:
            return
        named = self._partial.count
        for instrument in self._partial.look(self._books)[: max(0, _NAMED_AT_MOST - named)]:
            log.warning(
                "%s: partial book: orders from before its stream began are not in it",
                self._instruments[instrument].text,
            )

    def close(self) -> None:
        """Look once more, and say how many there were where not all were named."""
        self.look()
        if self._partial.count > _NAMED_AT_MOST:
            log.warning("%d books in all are partial", self._partial.count)
