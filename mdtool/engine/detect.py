"""Detectors of what is unusual in a stream of trades and quotes. They predict nothing.

`Detector` is the engine, over columns; `DetectStream` applies it to DBN records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdtool.core.batch import Batch
from mdtool.core.config import setting
from mdtool.core.dtypes import F_MAYBE_BAD_BOOK, F_SNAPSHOT, MBO, MBP1, OHLCV
from mdtool.core.instruments import Instruments
from mdtool.core.records import coded, has_trades, index_timestamps, is_priced, is_trade
from mdtool.core.units import NS_PER_S, PRICE_SCALE, UNDEF_PRICE, format_price, format_time
from mdtool.engine import detect_kernel as kernels
from mdtool.engine.book.kernel import B_UNKNOWN_SIDES
from mdtool.engine.book.state import Books
from mdtool.engine.trade_views import CADENCES, VIEWS, TradeViews

Events = NDArray[np.void]
"""An array of `detect_kernel.EVENT`."""
Marks = NDArray[np.bool_]
Found = NDArray[np.void]
"""An array of `detect_kernel.ALERT`."""

KINDS: Final = ("jump", "burst", "off-quote", "crossed", "spread", "stale", "gap", "band")
SEVERITIES: Final = ("low", "medium", "high")
_MEDIUM_FROM: Final = 2.0
_HIGH_FROM: Final = 5.0

_FIRST_ROWS: Final = 64
_ALERTS: Final = 4_096
CHANNELS: Final = 1 << 16
"""How many sequences are told apart: of a file, one of each publisher."""
_MOST_VOLUME: Final = np.uint64(2**62)
_BLANK_ROW: Final = np.zeros(1, kernels.ROW)
_BLANK_ROW["expires_ns"] = 2**63 - 1
_BLANK_ROW["bid"] = _BLANK_ROW["ask"] = UNDEF_PRICE


@dataclass(frozen=True, slots=True)
class DetectRule:
    """What counts as unusual, for the symbols of one pattern."""

    warm_up: int = setting(
        50, "Trades, quotes or times of a symbol before any is judged.", low=1, high=1_000_000
    )
    cool_down_s: float = setting(
        5.0, "Findings no farther apart are one alert.", low=0.0, high=86_400
    )
    jump_z: float = setting(12.0, "Returns of so many usual ones are a jump.", low=1.0)
    jump_min: float = setting(0.003, "A jump is at least this part of the price.", low=0.0)
    burst_z: float = setting(15.0, "Volume above the mean by so many deviations.", low=1.0)
    burst_trades: float = setting(
        20.0, "A burst has the volume of at least so many usual trades.", low=0.0
    )
    burst_peak: float = setting(
        2.5, "It is also so many times the highest volume of a window of late.", low=0.0
    )
    burst_window_s: float = setting(1.0, "What volume is counted in.", low=0.001, high=86_400)
    off_quote: float = setting(
        0.001, "A trade is off the quote by more than this part of the price.", low=0.0
    )
    quote_age_s: float = setting(5.0, "Older quotes do not judge trades.", low=0.0)
    crossed_s: float = setting(1.0, "How long a quote is crossed or locked.", low=0.0)
    spread_ratio: float = setting(8.0, "A spread of so many usual ones is wide.", low=1.0)
    spread_s: float = setting(1.0, "How long a spread is wide.", low=0.0)
    stale_ratio: float = setting(50.0, "A silence of so many usual ones is stale.", low=1.0)
    stale_longest: float = setting(
        3.0, "It is also so many times the longest silence of late.", low=1.0
    )
    stale_s: float = setting(3.0, "A shorter silence is not stale.", low=0.0)
    stale_after_s: float = setting(
        60.0, "A symbol is heard for so long before its silences are judged.", low=0.0
    )
    band: float = setting(
        0.1, "The static band: this part of the first price; 0 for none.", low=0.0
    )
    low: float = setting(0.0, "The lowest price of the band, together with high.")
    high: float = setting(0.0, "The highest price of the band, together with low.")

    def row(self) -> tuple[Any, ...]:
        """Return the rule as a `detect_kernel.RULE`."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("low", "high"):
            values[name] = round(values[name] * PRICE_SCALE)
        for name in [name for name in values if name.endswith("_s")]:
            values[name.removesuffix("_s") + "_ns"] = round(values.pop(name) * NS_PER_S)
        return tuple(values[name] for name in kernels.RULE.names or ())


class Rules:
    """The rules of patterns of symbols, of which the first that fits a symbol holds.

    Parameters
    ----------
    patterns : mapping of str to DetectRule
        In order; `*` stands for any text. A symbol that none fits has the defaults.
    """

    def __init__(self, patterns: Mapping[str, DetectRule] | None = None) -> None:
        self._patterns = list(patterns or {})
        rules = [*(patterns or {}).values(), DetectRule()]
        self.rows = np.array([rule.row() for rule in rules], kernels.RULE)

    def find(self, symbol: str) -> int:
        """Return the place of a symbol's rule in `rows`."""
        for place, pattern in enumerate(self._patterns):
            if fnmatchcase(symbol, pattern):
                return place
        return len(self._patterns)


class Alert(NamedTuple):
    """An episode of one kind, of one symbol.

    Attributes
    ----------
    symbol : str
    kind : str
        Of `KINDS`.
    begin_ns, end_ns : int
        From the first finding to the last; so far, while it is open.
    is_open : bool
        Whether it may go on.
    severity : str
        Of `SEVERITIES`, by how far the worst finding is above its limit.
    findings : int
        How many findings it has.
    value, baseline : str
        What was observed at the worst, and what it was compared with: prices, volumes, durations
        in ns or sequence numbers.
    score, limit : float
        How unusual that is, in the kind's own measure, and from where on it is an alert.
    """

    symbol: str
    kind: str
    begin_ns: int
    end_ns: int
    is_open: bool
    severity: str
    findings: int
    value: str
    baseline: str
    score: float
    limit: float

    @property
    def id(self) -> str:
        """What identifies the episode: its kind, symbol and begin."""
        return f"{self.kind}:{self.symbol}:{self.begin_ns}"

    @property
    def number(self) -> int:
        """The number of its kind: its place among alerts that begin at the same time."""
        return KINDS.index(self.kind)

    @property
    def ended_ns(self) -> int | None:
        """When it ended, None while it is open."""
        return None if self.is_open else self.end_ns

    @property
    def score_text(self) -> str:
        """The score as a decimal."""
        return f"{self.score:.6g}"

    @property
    def limit_text(self) -> str:
        """The limit as a decimal."""
        return f"{self.limit:.6g}"

    @classmethod
    def of(cls, found: Any, symbol: str) -> Alert:
        """Return one row of `Found` for people and wires."""
        kind = KINDS[int(found["kind"])]
        has_prices = kind in {"jump", "off-quote", "crossed", "spread", "band"}
        text: Callable[[int], str] = format_price if has_prices else str
        return cls(
            symbol=symbol,
            kind=kind,
            begin_ns=int(found["begin_ns"]),
            end_ns=int(found["end_ns"]),
            is_open=bool(found["is_open"]),
            severity=severity(float(found["score"]), float(found["limit"])),
            findings=int(found["count"]),
            value=text(int(found["value"])),
            baseline=text(int(found["baseline"])),
            score=round(float(found["score"]), 6),
            limit=round(float(found["limit"]), 6),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the alert for JSON."""
        return {
            "id": self.id,
            "symbol": self.symbol,
            "kind": self.kind,
            "severity": self.severity,
            "begin": format_time(self.begin_ns),
            "end": None if self.is_open else format_time(self.end_ns),
            "findings": self.findings,
            "value": self.value,
            "baseline": self.baseline,
            "score": self.score,
            "limit": self.limit,
        }


def severity(score: float, limit: float) -> str:
    """Return how bad a finding is, by how many times its limit it is."""
    times = score / limit if limit > 0 else _HIGH_FROM
    return SEVERITIES[(times >= _MEDIUM_FROM) + (times >= _HIGH_FROM)]


class Detector:
    """All detectors, for any number of instruments.

    Parameters
    ----------
    rules : Rules
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._known = 0
        self._state = kernels.Detectors(
            rules.rows,
            np.empty(0, kernels.ROW),
            np.zeros((0, kernels.KINDS), kernels.EPISODE),
            np.zeros(CHANNELS, kernels.CHANNEL),
            np.zeros(_ALERTS, kernels.ALERT),
            np.zeros(1, np.int64),
        )

    def restart(self, channels: Sequence[int]) -> None:
        """Let the sequences of channels continue with any number, which leaves nothing out."""
        self._state.channels["last_ns"][channels] = 0

    def know(self, symbols: Sequence[str]) -> None:
        """Make room for instruments, whose events may then be taken.

        Parameters
        ----------
        symbols : sequence of str
            Of all instruments, by index; those that were known before are unchanged.
        """
        rows, episodes = self._state.rows, self._state.episodes
        if len(symbols) > len(rows):
            more = max(len(symbols), 2 * len(rows), _FIRST_ROWS) - len(rows)
            rows = np.concatenate([rows, np.repeat(_BLANK_ROW, more)])
            new = np.zeros((more, kernels.KINDS), kernels.EPISODE)
            episodes = np.concatenate([episodes, new])
            self._state = self._state._replace(rows=rows, episodes=episodes)
        for index in range(self._known, len(symbols)):
            rows["rule"][index] = self._rules.find(symbols[index])
        self._known = max(self._known, len(symbols))

    def update(self, events: Events) -> Found:
        """Take events in order of arrival; return the episodes that opened or closed.

        A time before the instrument's latest counts as that.
        """
        return self._run(lambda begin: kernels.detect(self._state, events, begin), len(events))

    def advance(self, now_ns: int) -> Found:
        """Let time pass without events; return the episodes that opened or closed."""
        rows = len(self._state.rows)
        return self._run(lambda begin: kernels.advance(self._state, now_ns, begin), rows)

    def finish(self) -> Found:
        """Return the episodes that are open, closed where they are: the stream has ended."""
        episodes = self._state.episodes
        instrument, kind = np.nonzero(episodes["is_open"])
        found = np.zeros(len(kind), kernels.ALERT)
        for name in kernels.EPISODE.names or ():
            found[name] = episodes[name][instrument, kind]
        found["instrument"], found["kind"] = instrument, kind
        found["is_open"] = episodes["is_open"] = 0
        return found

    def _run(self, take: Callable[[int], int], total: int) -> Found:
        taken, parts = take(0), []
        while True:
            written = int(self._state.written[0])
            if written:
                parts.append(self._state.alerts[:written].copy())
                self._state.written[0] = 0
            if taken >= total:
                return np.concatenate(parts) if parts else np.empty(0, kernels.ALERT)
            taken = take(taken)


class DetectStream:
    """Takes a stream of DBN records as it arrives; yields alerts once they have ended.

    Trades are those of trades, MBP and MBO records, each judged once where a stream shows several
    views of them; quotes are those of MBP and BBO records and of the books that MBO records make.
    A bar counts as a trade at its end: its volume at its close. Other records are skipped.

    Parameters
    ----------
    rules : Rules

    Attributes
    ----------
    records : int
        How many were taken.
    first_ns, latest_ns : int
        The times of the first and the latest, 0 before any.
    """

    def __init__(self, rules: Rules) -> None:
        self._detector = Detector(rules)
        self._books = Books()
        self._views = TradeViews()
        self._instruments = Instruments()
        self.first_ns = self.latest_ns = 0
        self.records = 0

    def update(self, batch: Batch) -> Iterator[Alert]:
        """Take a stream's next records; yield the alerts that have ended."""
        dtype = batch.records.dtype
        if not (has_trades(dtype) or "bid_px_00" in (dtype.names or ()) or dtype == OHLCV):
            return
        self.records += len(batch)
        self._instruments = batch.instruments
        counted = self._views.count(batch) if batch.rtype in VIEWS else None
        events = events_of(batch, self._books, counted)
        if len(events):
            self.first_ns = self.first_ns or int(events["ts_ns"][0])
            self.latest_ns = max(self.latest_ns, int(events["ts_ns"].max()))
            self._detector.know(self._instruments.texts.tolist())
            yield from self._closed(self._detector.update(events))

    def finish(self) -> Iterator[Alert]:
        """Yield the alerts that the end of the stream leaves open."""
        yield from self._closed(self._detector.advance(self.latest_ns))
        yield from self._closed(self._detector.finish())

    def _closed(self, found: Found) -> Iterator[Alert]:
        texts = self._instruments.texts
        for each in found[found["is_open"] == 0]:
            yield Alert.of(each, texts[each["instrument"]])


def events_of(batch: Batch, books: Books, counted: Marks | None = None) -> Events:
    """Return the events of records of trades, quotes or bars.

    Parameters
    ----------
    batch : Batch
    books : Books
        To which orders are applied.
    counted : bool[n], optional
        Which records count as trades or bars; by default all that are.
    """
    dtype = batch.records.dtype
    if counted is None:
        has_action = has_trades(dtype)
        counted = is_trade(batch.records) if has_action else np.ones(len(batch), np.bool_)
    if dtype == MBO:
        events = _events_of_orders(batch, books, counted)
    elif dtype == OHLCV:
        events = _events_of_bars(batch)[counted]
    else:
        events = _events(batch, counted)
    is_known = events["ts_ns"] >= 0
    return events if is_known.all() else events[is_known]


def blank_events(count: int) -> Events:
    """Return events without a trade, a quote or a sequence."""
    events = np.zeros(count, kernels.EVENT)
    events["sequence"] = -1
    events["price"] = events["bid"] = events["ask"] = UNDEF_PRICE
    return events


def sequences_of(batch: Batch) -> Events:
    """Return the events of records as far as they are numbered, without their trades and quotes."""
    records = batch.records
    names = records.dtype.names or ()
    if "sequence" not in names:
        return blank_events(0)
    events = blank_events(len(batch))
    events["instrument"] = batch.instrument
    events["ts_ns"] = index_timestamps(records)
    events["channel"] = records["publisher_id"]
    events["sequence"] = records["sequence"]
    is_live = events["ts_ns"] >= 0
    if "flags" in names:  # the opening book has the numbers of its orders
        is_live &= (records["flags"] & F_SNAPSHOT) == 0
    return events[is_live]


def _events_of_orders(batch: Batch, books: Books, counted: Marks) -> Events:
    orders, events = coded(batch.records), np.empty(2 * len(batch), kernels.EVENT)
    taken = made = 0
    for quotes in chain(books.events(batch, 1), [Batch.empty(MBP1)]):
        state = books.state
        is_partial = state.books[state.rows[quotes.instrument] - 1, B_UNKNOWN_SIDES] != 0
        quotes.records["flags"][is_partial] |= F_MAYBE_BAD_BOOK
        taken, more = kernels.merge(
            *(orders, batch.instrument, counted),
            *(coded(quotes.records), quotes.instrument),
            *(taken, events[made:]),
        )
        made += more
    return events[:made]


def _events_of_bars(batch: Batch) -> Events:
    bars = batch.records
    events = blank_events(len(batch))
    events["instrument"] = batch.instrument
    starts_ns = index_timestamps(bars)
    events["ts_ns"] = np.where(starts_ns < 0, -1, starts_ns + CADENCES.get(batch.rtype, 0))
    events["price"] = bars["close"]
    events["size"] = np.minimum(bars["volume"], _MOST_VOLUME)
    return events


def _events(batch: Batch, counted: Marks) -> Events:
    records = batch.records
    names = records.dtype.names or ()
    events = blank_events(len(records))
    events["instrument"] = batch.instrument
    events["ts_ns"] = index_timestamps(records)
    events["channel"] = records["publisher_id"]
    if "sequence" in names:
        events["sequence"] = records["sequence"]
    if has_trades(records.dtype):
        traded = np.flatnonzero(counted & is_priced(records))
        events["price"][traded] = records["price"][traded]
        events["size"][traded] = records["size"][traded]
    events["has_quote"] = "bid_px_00" in names
    is_partial = (records["flags"] & F_MAYBE_BAD_BOOK) != 0 if "flags" in names else False
    for side in ("bid", "ask"):
        has_level = f"{side}_px_00" in names
        price = records[f"{side}_px_00"] if has_level else UNDEF_PRICE
        events[side] = np.where(is_partial, UNDEF_PRICE, price)
    if "flags" in names:  # the opening book is as old as its orders
        events["ts_ns"][(records["flags"] & F_SNAPSHOT) != 0] = -1
    return events
