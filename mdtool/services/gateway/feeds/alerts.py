"""Alerts: what detectors find in the trades and quotes of every symbol. They predict nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

from mdtool.adapters.market import TradeFeed, UnknownSymbolError
from mdtool.engine.detect import Alert, Rules
from mdtool.services.alerts.following import follow_market
from mdtool.services.alerts.watch import Watch
from mdtool.services.alerts.webhooks import Webhooks
from mdtool.services.client import Client
from mdtool.services.gateway.feeds.feed import ALL, Audience, Key, LazyRows, Page, Rows
from mdtool.services.gateway.feeds.quotes import LatestQuote
from mdtool.services.gateway.fields import Field, Kind, encoder
from mdtool.services.gateway.hub import Changes, Subscription
from mdtool.services.gateway.market import MarketState
from mdtool.services.gateway.parameters import ParameterError
from mdtool.wire.cursors import Cursor, CursorError, decode_cursor, encode_cursor
from mdtool.wire.quotes import Quote

log = logging.getLogger(__name__)

FIELDS: Final = (
    Field("symbol", Kind.TEXT, "The symbol."),
    Field("id", Kind.TEXT, "What identifies the episode: its kind, symbol and begin."),
    Field("kind", Kind.TEXT, "Which detector found it."),
    Field("severity", Kind.TEXT, "low, medium or high, by how far it is above its limit."),
    Field("begin", Kind.TIME, "Of the first finding.", source="begin_ns"),
    Field("end", Kind.TIME, "Of the last one; null while it is open.", "ended_ns", True),
    Field("findings", Kind.SIZE, "How many findings the episode has so far."),
    Field("value", Kind.TEXT, "What was observed at the worst: a price, a volume, a time in ns."),
    Field("baseline", Kind.TEXT, "What that was compared with."),
    Field("score", Kind.TEXT, "How unusual that is, in the measure of its kind.", "score_text"),
    Field("limit", Kind.TEXT, "The score from which on it is an alert.", "limit_text"),
)
encode_alert: Final = encoder(FIELDS)


class Alerts:
    """The feed of alerts. A state of it is the latest episode of a symbol and kind.

    Parameters
    ----------
    rules : Rules
    trades : TradeFeed
        The stream of all trades; entered by the caller.
    webhooks : Webhooks
        What is notified, besides clients.
    market : MarketState
        What knows symbols.
    audience : Audience

    Attributes
    ----------
    watch : Watch
    webhooks : Webhooks
    """

    def __init__(
        self,
        rules: Rules,
        trades: TradeFeed,
        webhooks: Webhooks,
        market: MarketState,
        audience: Audience[Alert],
    ) -> None:
        self.watch = Watch(rules, self._publish)
        self.webhooks = webhooks
        self._trades = trades
        self._market = market
        self._audience = audience
        self._latest: dict[tuple[str, str], Alert] = {}
        self._changes = Changes(audience.hub, self._publish_latest)

    async def run(self) -> None:
        """Follow trades, and look at symbols without events, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.webhooks.run())
            tasks.create_task(follow_market(self.watch, self._trades))

    def quote(self, quotes: Sequence[LatestQuote]) -> None:
        """Take quotes that changed; last trades alone, and stale ones, are left out."""
        of_books = [each for each in quotes if each.is_of_book and not each.is_stale]
        if of_books:
            self.watch.quote([Quote(*each[:-1]) for each in of_books])

    async def current(self, _client: Client, key: Key) -> Sequence[Alert]:
        """As `Feed.current`: the alert of a symbol that began last, or of each."""
        if key.symbol == ALL:
            return LazyRows(self.watch.symbols(), self._last)
        alert = self.watch.latest(key.symbol)
        if alert is None:
            raise UnknownSymbolError(f"no alert of {key.symbol} yet")
        return [alert]

    def knows(self, key: Key) -> bool:
        """As `Feed.knows`."""
        symbol = key.symbol
        return (
            symbol == ALL
            or self._market.symbols.find(symbol) is not None
            or self.watch.knows(symbol)
        )

    def follow(
        self, key: Key, subscription: Subscription, after: str | None = None
    ) -> Callable[[], None]:
        """As `Feed.follow`."""
        return self._audience.join(key, subscription, self._snapshot(key.symbol))

    async def history(self, _client: Client, key: Key, page: Page) -> Rows[Alert]:
        """As `HistoryFeed.history`: the alerts that are kept in memory, by their begin."""
        if not self.knows(key):
            raise UnknownSymbolError(f"{key.symbol} has not traded yet")
        found = list(self.watch.alerts(key.symbol))
        found.sort(key=_place, reverse=not page.is_ascending)
        if page.from_ns is not None:
            found = [alert for alert in found if alert.begin_ns >= page.from_ns]
        if page.to_ns is not None:
            found = [alert for alert in found if alert.begin_ns < page.to_ns]
        if page.cursor is not None:
            behind = _behind(page.cursor, key.symbol)
            found = [
                alert
                for alert in found
                if (_place(alert) > behind if page.is_ascending else _place(alert) < behind)
            ]
        rows = found[: page.limit]
        has_more = len(found) > page.limit
        cursor = encode_cursor(Cursor(key.symbol, *_place(rows[-1]), 0)) if has_more else None
        return Rows(rows, cursor)

    def _publish(self, alerts: Sequence[Alert]) -> None:
        self._latest.update(((alert.symbol, alert.kind), alert) for alert in alerts)
        for alert in alerts:
            log.debug("%s: %s", "opened" if alert.is_open else "ended", alert.id)
            self.webhooks.publish(encode_alert(alert))
        if self._audience:
            self._changes.add((alert.symbol, alert.kind) for alert in alerts)

    def _publish_latest(self, changed: Collection[tuple[str, str]]) -> None:
        for state in changed:
            self._audience.publish(Key(state[0]), self._latest[state], state)

    def _last(self, symbol: str) -> Alert:
        alert = self.watch.latest(symbol)
        assert alert is not None
        return alert

    def _snapshot(self, symbol: str) -> Iterator[tuple[Alert, tuple[str, str]]]:
        for name in self.watch.symbols() if symbol == ALL else (symbol,):
            alert = self.watch.latest(name)
            if alert is not None:
                yield alert, (alert.symbol, alert.kind)


def _place(alert: Alert) -> tuple[int, int]:
    """Return an alert's place among those of its symbol."""
    return alert.begin_ns, alert.number


def _behind(cursor: str, symbol: str) -> tuple[int, int]:
    try:
        place = decode_cursor(cursor)
    except CursorError as error:
        raise ParameterError(f"cursor: {error}; pass next of the page before") from error
    if place.symbol != symbol:
        raise ParameterError("cursor: of another symbol; pass next of the page before")
    return place.timestamp_ns, place[2]
