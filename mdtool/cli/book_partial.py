"""A word on stderr about partial books, for outputs that cannot say it themselves."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mdtool.core.symbology import Symbology
    from mdtool.engine.book.state import Books

log = logging.getLogger(__name__)

_NAMED_AT_MOST: Final = 5


class PartialNotice:
    """Names the first partial books as soon as they are met, and counts them at the end.

    Parameters
    ----------
    symbology : Symbology
    """

    def __init__(self, symbology: Symbology) -> None:
        from mdtool.engine.book.partial import PartialBooks

        self._partial = PartialBooks()
        self._symbology = symbology

    def look(self, books: Books) -> None:
        """Speak of books that have turned out to be partial."""
        named = self._partial.count
        for key, ts_recv in self._partial.look(books)[: max(0, _NAMED_AT_MOST - named)]:
            log.warning(
                "%s: partial book: orders from before its stream began are not in it",
                self._symbology.symbol(key.instrument_id, ts_recv),
            )

    def close(self) -> None:
        """Say how many there were, where not all were named."""
        if self._partial.count > _NAMED_AT_MOST:
            log.warning("%d books in all are partial", self._partial.count)
