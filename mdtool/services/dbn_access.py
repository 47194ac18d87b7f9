"""What clients may read of DBN streams: each record is of a feed and of a symbol."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import databento_dbn as dbn
import numpy as np
import numpy.typing as npt

from mdtool.core.batch import Resolver
from mdtool.core.dtypes import RTYPE_SYMBOL_MAPPING
from mdtool.core.instruments import Instruments
from mdtool.core.permissions import Access, ForbiddenError
from mdtool.core.records import Records
from mdtool.services.client import Client
from mdtool.wire.dbn_metadata import shown
from mdtool.wire.dbn_records import CONTROL_RTYPES, RTYPES

_BOOKS, _QUOTES, _SYMBOLS, _BARS = "books", "quotes", "symbols", "bars"
FEED_OF_SCHEMA: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(RTYPES, _QUOTES),
        **dict.fromkeys(("mbo", "mbp-10"), _BOOKS),
        **dict.fromkeys((each for each in RTYPES if each.startswith("ohlcv-")), _BARS),
        **dict.fromkeys(("definition", "statistics", "status", "imbalance"), _SYMBOLS),
        "trades": "trades",
    }
)
"""The feed of which a role has to have the records of each schema."""
_FEEDS: Final = tuple(dict.fromkeys(FEED_OF_SCHEMA.values()))
_FEED_OF_RTYPE: Final = {RTYPES[schema]: feed for schema, feed in FEED_OF_SCHEMA.items()}


def reads_all(access: Access) -> bool:
    """Return whether a permission class may read every record."""
    return all(access.reader(feed) is None for feed in _FEEDS)


def check_records(client: Client) -> None:
    """Raise where a client may read no records of any kind.

    Raises
    ------
    TokenError
        When it has yet to authenticate.
    ForbiddenError
        When none of its roles has a feed of records.
    """
    client.check_token()
    security, access = client.security, client.principal.access
    if security is not None:
        why = None
        if not any(access.has_feed(feed) for feed in _FEEDS):
            why = f"none of your roles has a feed of records: {', '.join(_FEEDS)}"
        security.note(client, "read DBN records", why)
        if why is not None:
            raise ForbiddenError(why)


class ShownRecords:
    """What a permission class may read of one stream, from a place in it on.

    Symbols are the labels of instruments: raw symbols where these are known.

    Parameters
    ----------
    access : Access
    metadata : databento_dbn.Metadata
        The stream's header.

    Attributes
    ----------
    metadata : databento_dbn.Metadata
        The header without the names of what is not shown.
    """

    def __init__(self, access: Access, metadata: dbn.Metadata) -> None:
        self._access = access
        self._instruments = Instruments()
        self._resolver = Resolver(self._instruments, "stream", metadata)
        self._is_shown: dict[str, npt.NDArray[np.bool_]] = {}
        self.metadata = shown(metadata, self._has_any)

    def select(self, records: Records) -> Records:
        """Return what is shown of the stream's next records, which are of one rtype."""
        rtype = int(records["rtype"][0]) if len(records) else None
        if rtype == RTYPE_SYMBOL_MAPPING:
            self._resolver.learn(records)
            feed = ""
        elif rtype is None or rtype in CONTROL_RTYPES:
            return records
        else:
            feed = _FEED_OF_RTYPE.get(rtype, _BOOKS)
        instrument = self._resolver.batch(records).instrument
        chosen = self._shown_of(feed)[instrument]
        return records if chosen.all() else records[chosen]

    def _shown_of(self, feed: str) -> npt.NDArray[np.bool_]:
        """Return which instruments are shown in a feed, in any for none, by their indices."""
        known = self._is_shown.get(feed, np.empty(0, np.bool_))
        if len(known) < len(self._instruments):
            texts = self._instruments.texts[len(known) :].tolist()
            new = [self._has(feed, text) if feed else self._has_any(text) for text in texts]
            known = self._is_shown[feed] = np.append(known, np.array(new, np.bool_))
        return known

    def _has(self, feed: str, symbol: str) -> bool:
        reader = self._access.reader(feed)
        return reader is None or reader.can_read(symbol)

    def _has_any(self, symbol: str) -> bool:
        return any(self._has(feed, symbol) for feed in _FEEDS)
