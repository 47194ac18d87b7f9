"""What the gateway publishes: one module a feed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mdtool.services.gateway.feeds.feed import Feed
from mdtool.services.gateway.feeds.permitted import PermittedFeed

if TYPE_CHECKING:
    from mdtool.services.gateway.table import FeedRow


class Feeds:
    """The feeds by name, and the table that describes them.

    Parameters
    ----------
    feeds : mapping of str to Feed
        By the names of the table.
    table : mapping of str to FeedRow

    Attributes
    ----------
    rows : list of FeedRow
        The rows of the table whose feeds there are.
    """

    def __init__(self, feeds: Mapping[str, Feed[Any]], table: Mapping[str, FeedRow]) -> None:
        self.rows = [row for name, row in table.items() if name in feeds]
        self._feeds = {row.name: PermittedFeed(feeds[row.name], row) for row in self.rows}

    def __contains__(self, name: str) -> bool:
        return name in self._feeds

    def __getitem__(self, name: str) -> PermittedFeed:
        """Return a feed; raise KeyError for a name that is not in the table."""
        return self._feeds[name]
