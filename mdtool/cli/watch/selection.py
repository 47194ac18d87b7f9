"""The selection of the table: its order, its filter and its place, which keys change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mdtool.cli.watch.quotes import Quote

_BACKSPACES: Final = frozenset({b"\x7f", b"\x08"})
_ENTERS: Final = frozenset({b"\r", b"\n"})
_ESCAPE: Final = b"\x1b"
_CLEAR: Final = b"\x15"
_MAX_FILTER_CHARS: Final = 70


@dataclass(frozen=True, slots=True)
class Order:
    """An order of symbols: largest first, except for names."""

    column: str
    key: Callable[[str, Quote], Any]
    is_descending: bool = True


def _least_without(ratio: float | None) -> float:
    return float("-inf") if ratio is None else ratio


ORDERS: Final[Sequence[Order]] = (
    Order("symbol", lambda symbol, _: symbol, is_descending=False),
    Order("price", lambda _, quote: quote.state.price),
    Order("change %", lambda _, quote: _least_without(quote.change_ratio)),
    Order("vs vwap", lambda _, quote: _least_without(quote.over_vwap)),
    Order("volume", lambda _, quote: quote.size),
    Order("updates", lambda _, quote: quote.updates),
)


class Selection:
    """The order, filter and place of the table.

    Attributes
    ----------
    order : Order
    is_reversed : bool
    filter : str
        The text that the names of shown symbols contain; upper-case.
    is_typing : bool
        Whether keys go into the filter.
    is_help : bool
    is_over : bool
        Whether the user has quit.
    """

    def __init__(self) -> None:
        self.is_reversed = False
        self.filter = ""
        self.is_typing = False
        self.is_help = False
        self.is_over = False
        self._place = 0
        self._top = 0
        self._room = 1
        self._keys: dict[bytes, Callable[[], None]] = {
            b"s": lambda: self._sort_by(self._place + 1),
            b"\x1b[C": lambda: self._sort_by(self._place + 1),
            b"S": lambda: self._sort_by(self._place - 1),
            b"\x1b[D": lambda: self._sort_by(self._place - 1),
            b"r": self._reverse,
            b"/": self._type,
            b"f": self._type,
            _ESCAPE: self._show_all,
            b"\x1b[A": lambda: self._scroll(-1),
            b"k": lambda: self._scroll(-1),
            b"\x1b[B": lambda: self._scroll(1),
            b"j": lambda: self._scroll(1),
            b"\x1b[5~": lambda: self._scroll(-self._room),
            b"b": lambda: self._scroll(-self._room),
            b"\x1b[6~": lambda: self._scroll(self._room),
            b" ": lambda: self._scroll(self._room),
            b"\x1b[H": self._go_to_top,
            b"\x1b[1~": self._go_to_top,
            b"g": self._go_to_top,
            b"\x1b[F": self._go_to_end,
            b"\x1b[4~": self._go_to_end,
            b"G": self._go_to_end,
            b"h": self._help,
            b"?": self._help,
            b"q": self._quit,
            b"Q": self._quit,
        }

    @property
    def order(self) -> Order:
        """The current order."""
        return ORDERS[self._place]

    @property
    def top(self) -> int:
        """How many of the symbols that match the filter are above the first one shown."""
        return self._top

    def press(self, key: bytes) -> None:
        """Handle a key."""
        if self.is_typing:
            self._type_key(key)
        elif key in self._keys:
            self._keys[key]()

    def choose(self, quotes: Mapping[str, Quote], room: int) -> tuple[list[tuple[str, Quote]], int]:
        """Return the symbols that there is room for, and how many match the filter."""
        fitting = [item for item in quotes.items() if self.filter in item[0].upper()]
        fitting.sort(key=lambda item: item[0])
        if self._place:
            fitting.sort(
                key=lambda item: self.order.key(*item),
                reverse=self.order.is_descending != self.is_reversed,
            )
        elif self.is_reversed:
            fitting.reverse()
        self._room = max(room, 1)
        self._top = max(min(self._top, len(fitting) - room), 0)
        return fitting[self._top : self._top + room], len(fitting)

    def _type_key(self, key: bytes) -> None:
        if key in _ENTERS:
            self.is_typing = False
        elif key == _ESCAPE:
            self.is_typing = False
            self.filter = ""
        elif key in _BACKSPACES:
            self.filter = self.filter[:-1]
        elif key == _CLEAR:
            self.filter = ""
        elif len(key) == 1 and 0x20 <= key[0] < 0x7F and len(self.filter) < _MAX_FILTER_CHARS:
            self.filter += key.decode("ascii").upper()
        self._top = 0

    def _sort_by(self, place: int) -> None:
        self._place = place % len(ORDERS)
        self.is_reversed = False
        self._top = 0

    def _reverse(self) -> None:
        self.is_reversed = not self.is_reversed
        self._top = 0

    def _type(self) -> None:
        self.is_typing = True
        self.is_help = False

    def _show_all(self) -> None:
        self.filter = ""
        self.is_help = False

    def _scroll(self, rows: int) -> None:
        self._top = max(self._top + rows, 0)

    def _go_to_top(self) -> None:
        self._top = 0

    def _go_to_end(self) -> None:
        self._top = 1 << 62

    def _help(self) -> None:
        self.is_help = not self.is_help

    def _quit(self) -> None:
        self.is_over = True
