"""Faults that are put into a simulated market, with the labels of what a detector should find.

A fault is written as its kind, when it begins, and optionally how long it lasts and in which symbol
it is: `jump@10s`, `stale@30s:5s`, `burst@20s:2s/MSFT`. Times count from the market's start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mdtool.core.config import did_you_mean
from mdtool.core.errors import UsageError
from mdtool.core.records import Records, index_timestamps, is_trade
from mdtool.core.units import NS_PER_S, UNDEF_PRICE, format_time, parse_duration
from mdtool.engine.simulate_defaults import FAULTS

_LASTING_NS: Final[dict[str, int | None]] = {
    "jump": None,
    "burst": 5 * NS_PER_S,
    "off-quote": None,
    "crossed": 3 * NS_PER_S,
    "spread": 3 * NS_PER_S,
    "stale": 10 * NS_PER_S,
    "gap": None,
    "band": 300 * NS_PER_S,
}
"""How long a fault of each kind lasts, where that is not given; None where it is a moment."""
SCHEMAS: Final = ("trades", "mbp-1")
"""In which there can be faults. An order whose price is changed would never be cancelled."""
_OF_QUOTES: Final = frozenset({"off-quote", "crossed", "spread"})
_JUMP: Final = 0.02
"""Of the price, up and down in turns, for good."""
_OFF_QUOTE: Final = 0.0025
"""Of the price, above the ask."""
_BAND_STEP: Final = 0.001
_BAND_STEPS: Final = 150
"""Prices rise by so many steps, one a trade, and fall again in the same way after the end."""
_BURST: Final = 20
"""What the sizes of trades are multiplied by."""
_WIDER: Final = 12
"""So many spreads are added on either side."""
_MISSING: Final = 10
"""How many packets a gap leaves out."""
_FOR_GOOD: Final = 2**63 - 1
_QUOTE: Final = ("bid_px_00", "ask_px_00")


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of a market.

    Attributes
    ----------
    kind : str
        Of `FAULTS`.
    after_ns : int
        When it begins, from the market's start on.
    lasting_ns : int
        How long it lasts, 0 for a moment.
    symbol : str
        In which symbol it is. A gap is in the sequence of all.
    """

    kind: str
    after_ns: int
    lasting_ns: int
    symbol: str


@dataclass(frozen=True, slots=True)
class Label:
    """What a fault did: its kind and symbol, and the time of its first and its last effect."""

    kind: str
    symbol: str
    begin_ns: int
    end_ns: int

    def as_dict(self) -> dict[str, str]:
        """Return the label for JSON, in the words of alerts."""
        begin, end = format_time(self.begin_ns), format_time(self.end_ns)
        return {"symbol": self.symbol, "kind": self.kind, "begin": begin, "end": end}


def parse_faults(text: str, symbols: Sequence[str]) -> list[Fault]:
    """Return the faults that a text describes, separated by commas.

    Parameters
    ----------
    text : str
    symbols : sequence of str
        Of the market; the first is that of a fault without one.

    Raises
    ------
    UsageError
        When a fault is not valid.
    """
    return [_parse(part.strip(), symbols) for part in text.split(",") if part.strip()]


def _parse(text: str, symbols: Sequence[str]) -> Fault:
    kind, has_time, rest = text.partition("@")
    if kind not in FAULTS:
        raise UsageError(f"{text}: no such kind of fault{did_you_mean(kind, FAULTS)}")
    when, _, symbol = rest.partition("/")
    after, _, lasting = when.partition(":")
    if not has_time:
        raise UsageError(f"{text}: give when it begins, such as {kind}@10s")
    if symbol and symbol not in symbols:
        raise UsageError(
            f"{text}: the market has no symbol {symbol}{did_you_mean(symbol, symbols)}"
        )
    usual = _LASTING_NS[kind]
    if lasting and usual is None:
        raise UsageError(f"{text}: a fault of this kind is a moment; leave out :{lasting}")
    lasting_ns = parse_duration(lasting) if lasting else usual or 0
    return Fault(kind, parse_duration(after), lasting_ns, symbol or symbols[0])


class FaultyMarket:
    """Puts faults into the records of a market.

    Packets are numbered anew, without holes: where orders are left out the market's own sequence
    has many, and a gap could not be told from them.

    Parameters
    ----------
    faults : sequence of Fault
    ids : mapping of str to int
        The instrument id of each symbol.
    start_ns : int
        When the market starts.
    tick : int
        To which prices are rounded.
    schema : str
        Of the records.

    Attributes
    ----------
    labels : list of Label
        Of the faults that are over, and changed anything.

    Raises
    ------
    UsageError
        When there can be no such fault in records of the schema.
    """

    def __init__(
        self,
        faults: Sequence[Fault],
        ids: Mapping[int, str],
        start_ns: int,
        tick: int,
        schema: str,
    ) -> None:
        if schema not in SCHEMAS:
            raise UsageError(f"faults in {schema}: choose a schema from {', '.join(SCHEMAS)}")
        for fault in faults:
            if fault.kind in _OF_QUOTES and schema == "trades":
                raise UsageError(f"{fault.kind} is a fault of quotes: give --schema mbp-1")
        by_symbol = {symbol: number for number, symbol in ids.items()}
        jumps: Counter[str] = Counter()
        self._effects: list[_Effect] = []
        for fault in sorted(faults, key=lambda fault: fault.after_ns):
            jumps[fault.symbol] += fault.kind == "jump"
            jump = 1 + _JUMP if jumps[fault.symbol] % 2 else 1 / (1 + _JUMP)
            self._effects.append(_Effect(fault, by_symbol[fault.symbol], start_ns, tick, jump))
        self._packets = self._now_ns = 0
        self._last_sequence = -1
        self.labels: list[Label] = []

    def apply(self, records: Records) -> Records:
        """Return the market's next records, in order of `ts_recv`, with the faults in them.

        They are fresh arrays.
        """
        records = records.copy()
        for effect in self._effects:
            if effect.fault.kind != "gap":
                records = effect.apply(records)
        self._number(records)
        now_ns = self._now_ns = max(self._now_ns, int(index_timestamps(records[-1:]).sum()))
        for effect in self._effects:
            if effect.fault.kind == "gap" and effect.until_ns:
                records = effect.apply(records)
            if effect.is_changed and not effect.is_labelled and now_ns > effect.end_ns:
                effect.is_labelled = True
                self.labels.append(effect.label)
        self._effects = [
            each
            for each in self._effects
            if now_ns <= each.until_ns or (each.is_changed and not each.is_labelled)
        ]
        return records

    def finish(self) -> None:
        """Label the faults that the market's end cuts short."""
        for effect in self._effects:
            if effect.is_changed and not effect.is_labelled:
                effect.end_ns = min(effect.end_ns, self._now_ns)
                self.labels.append(effect.label)
        self._effects = []

    def _number(self, records: Records) -> None:
        """Give packets numbers without holes."""
        if not len(records):
            return
        sequence = records["sequence"].astype(np.int64)
        is_new = np.diff(sequence, prepend=self._last_sequence) != 0
        numbers = self._packets + np.cumsum(is_new)
        records["sequence"] = numbers % 2**32
        self._last_sequence, self._packets = int(sequence[-1]), int(numbers[-1])


class _Effect:
    """What a fault does to records."""

    def __init__(
        self, fault: Fault, instrument_id: int, start_ns: int, tick: int, jump: float
    ) -> None:
        self.fault = fault
        self.begin_ns = start_ns + fault.after_ns
        self.end_ns = self.begin_ns + fault.lasting_ns
        self.until_ns = self.end_ns if fault.lasting_ns else _FOR_GOOD
        self._falls_ns, self._level = self.end_ns, 0
        if fault.kind == "band":
            self.end_ns = self.until_ns = _FOR_GOOD
        self.is_changed = self.is_labelled = False
        self._first_lost: np.uint32 | None = None
        self._instrument_id = instrument_id
        self._tick = tick
        self._jump = jump
        self._change = {
            "jump": self._shift,
            "burst": self._enlarge,
            "off-quote": self._print_off_quote,
            "crossed": self._lock,
            "spread": self._widen,
            "stale": self._silence,
            "gap": self._lose,
            "band": self._bend,
        }[fault.kind]

    @property
    def label(self) -> Label:
        """What a detector should find."""
        return Label(self.fault.kind, self.fault.symbol, self.begin_ns, self.end_ns)

    def apply(self, records: Records) -> Records:
        """Change those of the records that it concerns; return what is left."""
        begin, end = np.searchsorted(index_timestamps(records), [self.begin_ns, self.until_ns])
        is_own = records["instrument_id"][begin:end] == self._instrument_id
        own = begin + np.flatnonzero(is_own)
        if not len(own) and self._first_lost is None:
            return records
        return self._change(records, own)

    def _shift(self, records: Records, own: NDArray[np.intp]) -> Records:
        traded = own[is_trade(records)[own]]
        if not self.is_changed and len(traded):
            self.end_ns = int(records["ts_recv"][traded[0]])
            self.is_changed = True
        return self._scaled(records, own, self._jump)

    def _bend(self, records: Records, own: NDArray[np.intp]) -> Records:
        steps = is_trade(records)[own].astype(np.int64)
        rising = int(np.searchsorted(index_timestamps(records)[own], self._falls_ns))
        levels = np.empty(len(own), np.int64)
        levels[:rising] = np.minimum(self._level + np.cumsum(steps[:rising]), _BAND_STEPS)
        highest = int(levels[rising - 1]) if rising else self._level
        levels[rising:] = np.maximum(highest - np.cumsum(steps[rising:]), 0)
        self._level = int(levels[-1])
        self.is_changed = True
        records = self._scaled(records, own, 1 + _BAND_STEP * levels)
        if rising < len(own) and not self._level:
            self.end_ns = int(index_timestamps(records)[own[np.argmin(levels[rising:]) + rising]])
            self.until_ns = 0
        return records

    def _enlarge(self, records: Records, own: NDArray[np.intp]) -> Records:
        traded = own[is_trade(records)[own]]
        records["size"][traded] *= _BURST
        self.is_changed |= len(traded) > 0
        return records

    def _print_off_quote(self, records: Records, own: NDArray[np.intp]) -> Records:
        is_quoted = (records["ask_px_00"] != UNDEF_PRICE) & is_trade(records)
        for at in own[is_quoted[own]][:1]:
            records["price"][at] = self._rounded(records["ask_px_00"][at] * (1 + _OFF_QUOTE))
            self.begin_ns = self.end_ns = int(records["ts_recv"][at])
            self.until_ns, self.is_changed = 0, True
        return records

    def _lock(self, records: Records, own: NDArray[np.intp]) -> Records:
        records["bid_px_00"][own] = records["ask_px_00"][own]
        self.is_changed = True
        return records

    def _widen(self, records: Records, own: NDArray[np.intp]) -> Records:
        bid, ask = (records[name][own] for name in _QUOTE)
        is_whole = (bid != UNDEF_PRICE) & (ask != UNDEF_PRICE)
        more = np.where(is_whole, (ask - bid) * _WIDER, 0)
        records["bid_px_00"][own] = bid - more
        records["ask_px_00"][own] = ask + more
        self.is_changed |= bool(is_whole.any())
        return records

    def _silence(self, records: Records, own: NDArray[np.intp]) -> Records:
        self.is_changed = True
        return np.delete(records, own)

    def _lose(self, records: Records, own: NDArray[np.intp]) -> Records:
        sequence = records["sequence"]
        if self._first_lost is None:
            self._first_lost = sequence[own[0]]
            self.begin_ns = self.end_ns = int(records["ts_recv"][own[0]])
            self.is_changed = True
        is_lost = sequence - self._first_lost < _MISSING
        if not is_lost[-1]:
            self.until_ns = 0
        return records[~is_lost]

    def _scaled(self, records: Records, own: NDArray[np.intp], by: Any) -> Records:
        for name in {"price", *_QUOTE} & set(records.dtype.names or ()):
            prices = records[name][own]
            scaled = self._rounded(prices * by)
            records[name][own] = np.where(prices == UNDEF_PRICE, prices, scaled)
        return records

    def _rounded(self, price: Any) -> Any:
        return np.rint(price / self._tick).astype(np.int64) * self._tick
