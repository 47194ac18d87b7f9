"""The quotes of a watch: each symbol's state, and how its price moved since the watch began."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from mdtool.core.units import PRICE_SCALE, UNDEF_PRICE
from mdtool.wire.alert_lines import AlertLine
from mdtool.wire.vwap_lines import VwapState

TREND_POINTS: Final = 40
_POINT_EVERY_S: Final = 0.5
_MIN_DECIMALS: Final = 2


@dataclass(slots=True)
class Quote:
    """The quote of a symbol.

    Attributes
    ----------
    state : VwapState
        The latest.
    first_price : int
        The price when the watch began.
    direction : int
        1 where the price rose last, -1 where it fell, 0 where it never moved.
    changed_s : float
        When it last changed, on the watch's clock.
    updated_s : float
        When the latest state arrived.
    updates : int
        How many states arrived.
    trend : deque of int
        Prices at least half a second apart, latest last.
    decimals : int
        The most that its prices have needed so far.
    alert : AlertLine or None
        The latest.
    """

    state: VwapState
    first_price: int
    updated_s: float
    direction: int = 0
    changed_s: float = float("-inf")
    updates: int = 1
    trend: deque[int] = field(default_factory=lambda: deque(maxlen=TREND_POINTS))
    decimals: int = _MIN_DECIMALS
    alert: AlertLine | None = None
    _point_s: float = float("-inf")

    @property
    def size(self) -> int:
        """The volume times its lot, at 1e-9."""
        return self.state.size

    @property
    def change(self) -> int:
        """How much the price has changed since the watch began, at 1e-9."""
        return self.state.price - self.first_price

    @property
    def change_ratio(self) -> float | None:
        """The change relative to the first price; None where that is 0."""
        return self.change / abs(self.first_price) if self.first_price else None

    @property
    def over_vwap(self) -> float | None:
        """How far the price is above its VWAP, relative to that; None without one, or at 0."""
        vwap = self.state.vwap
        if vwap in (UNDEF_PRICE, 0):
            return None
        return (self.state.price - vwap) / abs(vwap)

    def __post_init__(self) -> None:
        self._add_point(self.updated_s)

    def update(self, state: VwapState, now_s: float) -> None:
        """Replace the state; a stale one is no update."""
        if state.is_stale:
            self.state = state
            return
        if state.price != self.state.price:
            self.direction = 1 if state.price > self.state.price else -1
            self.changed_s = now_s
        self.state = state
        self.updated_s = now_s
        self.updates += 1
        self._add_point(now_s)

    def _add_point(self, now_s: float) -> None:
        """Add the price to the trend, and its decimals to those that are shown."""
        price = self.state.price
        if now_s - self._point_s >= _POINT_EVERY_S:
            self.trend.append(price)
            self._point_s = now_s
        else:
            self.trend[-1] = price
        while self.decimals < 9 and price % 10 ** (9 - self.decimals):
            self.decimals += 1


class Quotes:
    """All symbols, by name."""

    def __init__(self) -> None:
        self.by_symbol: dict[str, Quote] = {}
        self.updates = 0
        self.latest_alert: AlertLine | None = None
        self._alerts: dict[str, AlertLine] = {}

    def alert(self, alert: AlertLine) -> None:
        """Apply an alert that began or ended."""
        known = self._alerts.get(alert.symbol)
        if known is not None and known.begin > alert.begin:
            return  # an older one has ended
        self._alerts[alert.symbol] = self.latest_alert = alert
        if (quote := self.by_symbol.get(alert.symbol)) is not None:
            quote.alert = alert

    def update(self, state: VwapState, now_s: float) -> None:
        """Apply a state of the feed."""
        self.updates += 1
        quote = self.by_symbol.get(state.symbol)
        if quote is None:
            alert = self._alerts.get(state.symbol)
            self.by_symbol[state.symbol] = Quote(state, state.price, now_s, alert=alert)
        else:
            quote.update(state, now_s)


def decimal_text(price: int, decimals: int, sign: str = "") -> str:
    """Return a price rounded to so many decimals, half away from zero, a dash for UNDEF_PRICE.

    `sign` "+" marks prices above 0 too.
    """
    if price == UNDEF_PRICE:
        return "-"
    step = 10 ** (9 - decimals)
    rounded = (abs(price) + step // 2) // step * step
    whole, fraction = divmod(rounded, PRICE_SCALE)
    mark = "-" if price < 0 and rounded else sign if price > 0 and rounded else ""
    shown = f".{fraction:09d}"[: decimals + 1] if decimals else ""
    return f"{mark}{whole:,}{shown}"
