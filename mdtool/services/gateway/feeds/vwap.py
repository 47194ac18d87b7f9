"""Rolling VWAP of each symbol, from the VWAP service over TCP."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from mdtool.adapters.market import UnavailableError, UnknownSymbolError
from mdtool.adapters.vwap_feed import LocalVwapFeedClient, VwapFeedClient, decode_states
from mdtool.services.client import Client
from mdtool.services.gateway.feeds.feed import ALL, Audience, Key, LazyRows
from mdtool.services.gateway.fields import STALE, Field, Kind
from mdtool.services.gateway.hub import Changes, Subscription
from mdtool.services.gateway.upstream import peer_state
from mdtool.wire.vwap_lines import VwapState

log = logging.getLogger(__name__)

_NOT_YET: Final = "not connected yet"
"""Before the first attempt to connect: its success is no news."""


class Vwap(NamedTuple):
    """The VWAP of a symbol's last trades; prices at 1e-9, the time of the last trade in ns.

    `vwap` is UNDEF_PRICE where the window is empty; `size` is that of the last trade, `window` how
    many trades there are.
    """

    symbol: str
    vwap: int
    price: int
    size: int
    window: int
    timestamp: int
    is_stale: bool


FIELDS: Final = (
    Field("symbol", Kind.TEXT, "The symbol."),
    Field("vwap", Kind.PRICE, "The VWAP of the window.", is_optional=True),
    Field("price", Kind.PRICE, "The price of the last trade.", is_optional=True),
    Field("size", Kind.SIZE, "The size of the last trade."),
    Field("window", Kind.SIZE, "The number of trades in the window."),
    Field("timestamp", Kind.TIME, "The exchange time of the last trade."),
    STALE,
)


class Vwaps:
    """The feed of VWAPs, always connected; they are stale while the service is unavailable.

    Parameters
    ----------
    service : VwapFeedClient or LocalVwapFeedClient
    audience : Audience

    Attributes
    ----------
    lost_because : str or None
        Why there is no connection.
    """

    def __init__(
        self, service: VwapFeedClient | LocalVwapFeedClient, audience: Audience[Vwap]
    ) -> None:
        self.lost_because: str | None = _NOT_YET
        self._service = service
        self._audience = audience
        self._changes = Changes(audience.hub, self._publish)
        self._rows: dict[str, Vwap] = {}
        self._in_order: list[str] = []

    async def run(self) -> None:
        """Follow the service until cancelled."""
        await self._service.follow(self)

    async def current(self, _client: Client, key: Key) -> Sequence[Vwap]:
        """As `Feed.current`."""
        if not self._rows:
            self._check_connected()
        if key.symbol == ALL:
            return LazyRows(self._symbols(), self._rows.__getitem__)
        row = self._rows.get(key.symbol)
        if row is None:
            self._check_connected()
            raise UnknownSymbolError(f"no VWAP of {key.symbol} yet")
        return [row]

    def knows(self, key: Key) -> bool:
        """As `Feed.knows`."""
        return key.symbol == ALL or key.symbol in self._rows

    def follow(
        self, key: Key, subscription: Subscription, after: str | None = None
    ) -> Callable[[], None]:
        """As `Feed.follow`."""
        return self._audience.join(key, subscription, self._snapshot(key.symbol))

    def report(self) -> Mapping[str, Any]:
        """Return the state of the service, for `/health`."""
        return peer_state(self._service.address, self.lost_because)

    # What the client of the service calls.

    def connected(self) -> None:
        """Take note that the service is connected; the state of every symbol follows."""
        level = logging.DEBUG if self.lost_because == _NOT_YET else logging.INFO
        self.lost_because = None
        log.log(level, "vwap %s: connected", self._service.address)

    def received(self, lines: list[bytes]) -> None:
        """Apply the latest state of each symbol."""
        states, errors = decode_states(lines)
        for error in errors:
            log.warning("vwap %s: %s", self._service.address, error)
        self.update({state.symbol: state for state in states}.values())

    def update(self, states: Collection[VwapState]) -> None:
        """Apply states, which are published when the hub is ready."""
        for state in states:
            self._rows[state.symbol] = Vwap(
                state.symbol,
                state.vwap,
                state.price,
                state.volume,
                state.window,
                state.timestamp_ns,
                is_stale=False,
            )
        self._changed(state.symbol for state in states)

    def lost(self, reason: str, delay_s: float, attempts: int) -> None:
        """Mark every state stale."""
        if self.lost_because is None:
            log.warning("vwap %s: %s; reconnecting", self._service.address, reason)
            for symbol, row in self._rows.items():
                self._rows[symbol] = row._replace(is_stale=True)
            self._changed(self._rows)
        self.lost_because = reason

    def _changed(self, symbols: Iterable[str]) -> None:
        if self._audience:
            self._changes.add(symbols)

    def _publish(self, symbols: Iterable[str]) -> None:
        for symbol in symbols:
            self._audience.publish(Key(symbol), self._rows[symbol], symbol)

    def _symbols(self) -> Sequence[str]:
        if len(self._in_order) != len(self._rows):
            self._in_order = sorted(self._rows)
        return self._in_order

    def _snapshot(self, symbol: str) -> Iterator[tuple[Vwap, str]]:
        for name in self._symbols() if symbol == ALL else (symbol,):
            row = self._rows.get(name)
            if row is not None:
                yield row, name

    def _check_connected(self) -> None:
        """Raise UnavailableError where what is unknown may only be unknown here."""
        if self.lost_because is not None:
            raise UnavailableError(
                f"vwap {self._service.address} is unavailable: {self.lost_because}"
            )
