"""Records of the topics of aggregates and bars; the format is in `mdtool.adapters.kafka`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdtool.core.errors import PeerError
from mdtool.engine.market import PAST
from mdtool.engine.saved_state import SAVED_BAR, SESSION

TOTALS: Final = b"t/"
"""The key of totals, the last record of a transaction."""
OFFSET: Final = "offset"
"""The name among the totals of the offset of the first record of ticks that is not counted."""
_TOPIC: Final = "topic"
_SYMBOL_BYTES: Final = SAVED_BAR["symbol"].itemsize
_BAR_BYTES: Final = SAVED_BAR.itemsize - _SYMBOL_BYTES
"""The symbol is in the key."""


class RecordError(PeerError):
    """A record that mdtool did not write."""


class Record(NamedTuple):
    """A key and its value, which is empty for a deleted key."""

    key: bytes
    value: bytes


def session_record(symbol: str, session: bytes) -> Record:
    """Return the record of a symbol's session, whose bytes are a SESSION."""
    return Record(b"s/" + symbol.encode(), session)


def lot_record(symbol: str, lot: int) -> Record:
    """Return the record of a symbol's lot, in units of 1e-9."""
    return Record(b"l/" + symbol.encode(), b"%d" % lot)


def position_record(stream_id: str, next_sequence: int | None) -> Record:
    """Return the record of a stream's position, None for one that is deleted."""
    value = b"" if next_sequence is None else b"%d" % next_sequence
    return Record(b"p/" + stream_id.encode(), value)


def totals_record(topic_id: str, totals: Mapping[str, int]) -> Record:
    """Return the record of totals, `OFFSET` among them, of a topic of ticks."""
    return Record(TOTALS, json.dumps({_TOPIC: topic_id, **totals}).encode())


def open_bar_records(names: Iterable[str], bars: NDArray[np.void]) -> Iterator[Record]:
    """Yield the records of open bars, SAVED_BAR[m], each with its symbol's name."""
    for name, length, value in zip(names, bars["interval_ns"].tolist(), _values(bars), strict=True):
        yield Record(b"o/%b/%d" % (name.encode(), length), value)


def recent_bar_records(
    names: Iterable[str], bars: NDArray[np.void], lateness_ns: int
) -> Iterator[Record]:
    """Yield the records of closed bars, SAVED_BAR[m], that may still be amended.

    There are as many keys of a symbol and length as such bars at most.
    """
    slots = bars["start_ns"] // bars["interval_ns"] % (lateness_ns // bars["interval_ns"] + 3)
    for name, length, slot, value in zip(
        names, bars["interval_ns"].tolist(), slots.tolist(), _values(bars), strict=True
    ):
        yield Record(b"b/%b/%d/%d" % (name.encode(), length, slot), value)


def closed_bar_records(names: Iterable[str], bars: NDArray[np.void]) -> Iterator[Record]:
    """Yield the records of closed bars, SAVED_BAR[m], for the topic of bars."""
    for name, length, start, value in zip(
        names,
        bars["interval_ns"].tolist(),
        bars["start_ns"].tolist(),
        _values(bars),
        strict=True,
    ):
        yield Record(b"%b/%d/%d" % (name.encode(), length, start), value)


@dataclass(slots=True)
class Aggregates:
    """The content of the topic of aggregates.

    Attributes
    ----------
    sessions : dict
        Of each symbol, the bytes of a SESSION.
    open_bars : dict
        Of each symbol and length in ns, the bytes of a SAVED_BAR without its symbol.
    recent_bars : dict
        Of each symbol, length in ns and start, the same of bars that have closed.
    positions : dict
        The next sequence of each stream, the least recently written first.
    lots : dict
        Of symbols, in units of 1e-9.
    totals : dict
        By name.
    topic_id : str
        Of the topic of ticks that the totals count, empty before the first.
    """

    sessions: dict[str, bytes] = field(default_factory=dict)
    open_bars: dict[tuple[str, int], bytes] = field(default_factory=dict)
    recent_bars: dict[tuple[str, int, int], bytes] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    lots: dict[str, int] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    topic_id: str = ""

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Apply the next record.

        Raises
        ------
        RecordError
            When mdtool did not write it.
        """
        try:
            self._apply(key or b"", value or b"")
        except (ValueError, UnicodeDecodeError) as error:
            raise RecordError(f"{key!r} is not a record of mdtool's aggregates: {error}") from error

    @property
    def is_whole(self) -> bool:
        """Whether the sessions have all trades that the totals count."""
        counts = (int(decode_session(value)["count"]) for value in self.sessions.values())
        return sum(counts) + self.totals.get(PAST, 0) == self.totals.get("ticks", 0)

    def saved_bars(self, symbols: Iterable[str], lateness_ns: int) -> NDArray[np.void]:
        """Return the open bars and the closed ones that may be amended, SAVED_BAR[m].

        Their `symbol` is the index in `symbols`.
        """
        place = {symbol: index for index, symbol in enumerate(symbols)}
        opened = _saved([place[symbol] for symbol, _ in self.open_bars], self.open_bars.values())
        closed = _saved(
            [place[symbol] for symbol, _, _ in self.recent_bars], self.recent_bars.values()
        )
        latest = np.full(len(place), np.iinfo(np.int64).min)
        np.maximum.at(latest, opened["symbol"], opened["last_ns"])
        ends = closed["start_ns"] + closed["interval_ns"]
        may_be_amended = ends > latest[closed["symbol"]] - lateness_ns
        return np.concatenate([opened, closed[may_be_amended]])

    def _apply(self, key: bytes, value: bytes) -> None:
        kind, _, name = key.decode().partition("/")
        if kind == "s":
            self.sessions[name] = _exactly(value, SESSION.itemsize)
        elif kind == "o":
            symbol, length = name.rsplit("/", 1)
            self.open_bars[symbol, int(length)] = _exactly(value, _BAR_BYTES)
        elif kind == "b":
            symbol, length, _ = name.rsplit("/", 2)
            bar = decode_bar(value)
            self.recent_bars[symbol, int(length), int(bar["start_ns"])] = value
        elif kind == "p":
            self.positions.pop(name, None)
            if value:
                self.positions[name] = int(value)
        elif kind == "l":
            self.lots[name] = int(value)
        elif kind == "t":
            totals = json.loads(value)
            self.topic_id = str(totals.pop(_TOPIC, ""))
            self.totals = {name: int(total) for name, total in totals.items()}
        else:
            raise ValueError("unknown kind of key")


def decode_session(value: bytes) -> np.void:
    """Return the SESSION in a record's value."""
    session: np.void = np.frombuffer(_exactly(value, SESSION.itemsize), SESSION)[0]
    return session


def decode_bar(value: bytes) -> np.void:
    """Return the SAVED_BAR in a record's value; its `symbol` is 0."""
    bar: np.void = _saved([0], [_exactly(value, _BAR_BYTES)])[0]
    return bar


def _exactly(value: bytes, length: int) -> bytes:
    if len(value) != length:
        raise ValueError(f"value of {len(value)} bytes, not {length}")
    return value


def _values(bars: NDArray[np.void]) -> list[bytes]:
    """Return the bytes of each bar without its symbol."""
    data = np.ascontiguousarray(bars).tobytes()
    size = SAVED_BAR.itemsize
    return [data[at + _SYMBOL_BYTES : at + size] for at in range(0, len(data), size)]


def _saved(symbol: list[int], values: Iterable[bytes]) -> NDArray[np.void]:
    rows = np.frombuffer(b"".join(values), np.int64).reshape(-1, _BAR_BYTES // 8)
    table = np.empty((len(rows), SAVED_BAR.itemsize // 8), np.int64)
    table[:, 0] = symbol
    table[:, 1:] = rows
    saved: NDArray[np.void] = table.view(SAVED_BAR).reshape(-1)
    return saved
