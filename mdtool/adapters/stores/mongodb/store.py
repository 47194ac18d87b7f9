"""Reads and writes a store in MongoDB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
from bson.binary import Binary
from bson.int64 import Int64
from numpy.typing import NDArray

from mdtool.adapters.stores.errors import StoreUnavailableError
from mdtool.adapters.stores.mongodb.claim import MarketClaim
from mdtool.adapters.stores.mongodb.commits import (
    Commits,
    Head,
    blank_stream,
    documents_by_id,
    insert,
    packed_bars,
    symbol_change,
)
from mdtool.adapters.stores.mongodb.connection import Connection, Documents, Location
from mdtool.adapters.stores.mongodb.documents import BAR_FIELDS, BARS, TRADE_KEYS, TRADES, packed
from mdtool.adapters.stores.mongodb.reader import Reader, check, joined, saved_bars, within
from mdtool.adapters.stores.port import MAX_NS, MIN_NS, Step, WrongTotals
from mdtool.adapters.stores.sql import (
    KEY_COLUMNS,
    StoredStream,
    new_trades,
    symbol_numbers,
    used_symbols,
)
from mdtool.engine.saved_state import SAVED_BAR, SESSION, SESSION_LENGTH, SavedState

_TRIES: Final = 50
"""How often a change is made again from what other writers have committed meanwhile."""
_RANGES: Final = 200
"""Ranges of keys in one request."""
_PRUNED: Final = 20_000
"""Trades deleted by one change."""
_HEARD: Final = 1 << 20
"""Places of streams in one step."""


class History(Reader):
    """Reads a store through a client of its own.

    Parameters
    ----------
    url : str
        As the package documents.

    Raises
    ------
    ConfigError
        When it is not valid.
    """

    def __init__(self, url: str) -> None:
        location = Location.parse(url)
        super().__init__(Connection(location, lambda each: check(each, location.address)))


class Store(Reader):
    """Writes steps, and reads; methods as in `port.Store`.

    Parameters
    ----------
    url : str
        As the package documents.

    Raises
    ------
    ConfigError
        When it is not valid.
    """

    def __init__(self, url: str) -> None:
        location = Location.parse(url)
        self._server = Connection(location, self._prepare)
        super().__init__(self._server)
        self._commits = Commits(location.address)
        self._claim = MarketClaim(location, self._commits)
        self._numbers: dict[str, int] = {}
        """The numbers of symbols."""

    def __enter__(self) -> Self:
        try:
            self._server.run(lambda _: None)
        except BaseException:
            self._server.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._claim.release()
        super().__exit__(*exc_info)

    def claim(self) -> None:
        """Hold the store's market until the block ends, or this process does, however it ends."""
        self._claim.hold()

    def load(self, max_streams: int, lateness_ns: int) -> SavedState:
        """Return the state of the market, at a cost that does not depend on the trades."""

        def load(database: Documents) -> SavedState:
            for _ in range(_TRIES):
                head = self._commits.settled(database)
                state = self._state(database, head, max_streams, lateness_ns)
                if self._commits.settled(database).number == head.number:
                    return state
            raise self._busy()

        return self._server.read(load)

    def position(self, stream_id: str) -> int | None:
        """Return the next sequence of a stream, None when the store knows none."""

        def position(database: Documents) -> int | None:
            self._commits.settled(database)
            found = database.streams.find_one({"_id": stream_id}, {"next": 1})
            return None if found is None else found["next"]

        return self._server.read(position)

    def own(self, stream_id: str, principal: str) -> str:
        """Make a stream a principal's, unless it is another's; return whose it is."""

        def own(database: Documents) -> str:
            found = database.streams.find_one({"_id": stream_id}, {"owner": 1})
            if found is not None and found["owner"] is not None:
                return str(found["owner"])
            if found is None:
                insert(database.streams, [blank_stream(stream_id, principal)])
            which = {"_id": stream_id, "owner": None}
            database.streams.update_one(which, {"$set": {"owner": principal}})
            return str((database.streams.find_one({"_id": stream_id}) or {})["owner"])

        return self._server.run(own)

    def write(self, step: Step) -> None:
        """Write a step; when this returns, it is stored whatever happens to this process."""
        self._server.run(lambda database: self._write(database, step))

    def repair(self) -> list[WrongTotals]:
        """Correct what `recount` finds, in one transaction, and return it."""

        def repair(database: Documents) -> list[WrongTotals]:
            for _ in range(_TRIES):
                head = self._commits.settled(database)
                wrong = list(self._wrong(database).values())
                totals = [
                    {
                        "_id": stored.symbol,
                        "totals": {
                            "trade_count": counted.trade_count,
                            "last_trade_at": counted.last_trade_at_ns
                            if counted.trade_count
                            else MIN_NS,
                        },
                    }
                    for stored, counted in wrong
                ]
                if not totals or self._commits.commit(database, head, {"symbols": totals}):
                    return wrong
            raise self._busy()

        return self._server.read(repair)

    def prune(self, before_ns: int) -> int:
        """Delete trades before an exchange time, and bars that ended by then; return how many."""

        def prune(database: Documents) -> int:
            self._commits.settled(database)
            names = [each["_id"] for each in database.symbols.find({}, {"_id": 1}).sort("number")]
            return sum(self._prune(database, name, before_ns) for name in names)

        return self._server.read(prune)

    def replace_market(self, step: Step) -> int:
        """Write sessions and bars in place of all that the step's symbols have."""
        return self._server.read(lambda database: self._replace(database, step))

    def used_bytes(self) -> None:
        """Return None: what MongoDB deletes takes space until its files are compacted."""

    def _prepare(self, database: Documents) -> None:
        self._commits.create(database)
        check(database, self.address)
        self._numbers.clear()  # another server may have replaced the one before

    def _busy(self) -> StoreUnavailableError:
        return StoreUnavailableError(f"{self.address}: other writers left no pause; try again")

    # What a step changes.

    def _write(self, database: Documents, step: Step) -> None:
        used = used_symbols(step)
        for _ in range(_TRIES):
            head = self._commits.settled(database)
            known, new_symbols = self._known(database, head, list(used.values()))
            streams, is_new = _streams(database, head, step)
            trades, moved = new_trades(step, streams, symbol_numbers(used, known))
            trades = self._without_stored(database, trades, streams.values())
            numbers = symbol_numbers(used, known)
            bars = step.bars.copy()
            bars["symbol"] = numbers[bars["symbol"]]
            change = {
                "new_symbols": new_symbols,
                "new_streams": sum(is_new.values()),
                "trades": packed(trades),
                "bars": packed_bars(bars),
                "symbols": _symbol_changes(step, used, numbers, trades),
                "streams": [
                    {
                        "_id": name,
                        "is_new": is_new[name],
                        "values": _stream_values(stream, moved, head.number + 1),
                    }
                    for name, stream in streams.items()
                ],
            }
            if self._commits.commit(database, head, change, step.counts):
                self._numbers.update(known)
                return
        raise self._busy()

    def _known(
        self, database: Documents, head: Head, names: Sequence[str]
    ) -> tuple[dict[str, int], list[dict[str, Any]]]:
        """Return the numbers of symbols, and those of them that have none yet."""
        missing = [name for name in names if name not in self._numbers]
        if missing:
            found = documents_by_id(database.symbols, missing)
            self._numbers.update((name, each["number"]) for name, each in found.items())
        new = [name for name in missing if name not in self._numbers]
        added = {name: head.symbols + place for place, name in enumerate(new, start=1)}
        return {**self._numbers, **added}, [
            {"_id": name, "number": number} for name, number in added.items()
        ]

    def _without_stored(
        self, database: Documents, trades: NDArray[np.int64], streams: Any
    ) -> NDArray[np.int64]:
        """Return those of trades, int64[7, n] in order of the key, that are new, each once."""
        parted = [stream.number for stream in streams if stream.has_parts]
        may_be_stored = np.isin(trades[2], parted)
        if not may_be_stored.any():
            return trades
        which = []
        checked = trades[:KEY_COLUMNS, may_be_stored]
        for number in np.unique(checked[0]).tolist():
            own = checked[:, checked[0] == number]
            first, last = own[:, 0].tolist(), own[:, -1].tolist()
            which.append({"_id": {"$gte": TRADES.key(*first), "$lte": TRADES.key(*last)}})
        seen: set[bytes] = set()
        for begin in range(0, len(which), _RANGES):
            ranges = {"$or": which[begin : begin + _RANGES]}
            for keys in self.batches(database.trades, TRADE_KEYS, ranges):
                seen.update(TRADE_KEYS.keys(keys))
        is_new = np.ones(trades.shape[1], np.bool_)
        for place, key in zip(
            np.flatnonzero(may_be_stored).tolist(), TRADE_KEYS.keys(checked), strict=True
        ):
            is_new[place] = key not in seen
            seen.add(key)
        return trades[:, is_new]

    def _prune(self, database: Documents, name: str, before_ns: int) -> int:
        total = tries = 0
        while tries < _TRIES:
            head = self._commits.settled(database)
            symbol = database.symbols.find_one({"_id": name}) or {}
            number = symbol["number"]
            old = within(TRADES, (number, MIN_NS), (number, before_ns))
            keys = joined(TRADE_KEYS, self.batches(database.trades, TRADE_KEYS, old, 1, _PRUNED))
            count = int(keys.shape[1])
            change: dict[str, Any] = {"_id": name}
            deleted: dict[str, Any] = {"symbols": [change]}
            if count:
                change["added"] = -count
                first, last = (TRADES.key(*keys[:, place].tolist()) for place in (0, -1))
                deleted["deleted_trades"] = [{"first": first, "last": last}]
            if count == symbol["trade_count"]:
                change["totals"] = {"last_trade_at": MIN_NS}
            if count < _PRUNED:
                deleted["deleted_bars"] = self._old_bars(database, number, before_ns)
                change["removed"] = _removed(symbol, count, before_ns)
                if not (count or deleted["deleted_bars"] or change["removed"]):
                    return total
            if not self._commits.commit(database, head, deleted):
                tries += 1
                continue
            total += count
            tries = 0
            if count < _PRUNED:
                return total
        raise self._busy()

    def _old_bars(
        self, database: Documents, number: int, before_ns: int
    ) -> list[dict[str, Binary]]:
        """Return the ranges of keys of a symbol's bars that ended by a time."""
        ranges: list[dict[str, Binary]] = []
        interval_ns = 0
        end = BARS.key(number + 1)
        while True:
            later = {"_id": {"$gte": BARS.key(number, interval_ns, MIN_NS), "$lt": end}}
            found = joined(BARS, self.batches(database.bars, BARS, later, 1, 1))
            if not found.shape[1]:
                return ranges
            interval_ns, first_ns = found[1:3, 0].tolist()
            length_ns = 1 if interval_ns == SESSION_LENGTH else interval_ns
            end_ns = max(MIN_NS, before_ns - length_ns + 1)
            if first_ns < end_ns:
                first = BARS.key(number, interval_ns, MIN_NS)
                ranges.append({"first": first, "end": BARS.key(number, interval_ns, end_ns)})
            interval_ns += 1

    def _replace(self, database: Documents, step: Step) -> int:
        used = used_symbols(step)
        for _ in range(_TRIES):
            head = self._commits.settled(database)
            known, new_symbols = self._known(database, head, list(used.values()))
            numbers = symbol_numbers(used, known)
            bars = step.bars.copy()
            bars["symbol"] = numbers[bars["symbol"]]
            names = [used[index] for index in step.changed.tolist()]
            before = self._rows(database, names)
            after = {("session", *row) for row in _session_rows(step, names)}
            after |= {("bar", *bar) for bar in bars.tolist()}
            # Bars that stay as they are, which most do, are not written.
            differs = np.array([("bar", *bar) not in before for bar in bars.tolist()], np.bool_)
            removed = _keys(before - after) - _keys(after)
            change = {
                "is_replaced": True,
                "new_symbols": new_symbols,
                "bars": packed_bars(bars[differs]),
                "symbols": _symbol_changes(step, used, numbers, np.empty((7, 0), np.int64)),
                "removed_bars": [BARS.key(*key) for key in sorted(removed)],
            }
            if self._commits.commit(database, head, change):
                return max(len(before - after), len(after - before))
        raise self._busy()

    def _rows(self, database: Documents, names: Sequence[str]) -> set[tuple[Any, ...]]:
        """Return the sessions and bars of symbols."""
        rows: set[tuple[Any, ...]] = set()
        for name, symbol in documents_by_id(database.symbols, names).items():
            number = symbol["number"]
            if "session" in symbol:
                rows.add(("session", name, *symbol["session"].values()))
            rows |= {("bar", *bar) for bar in _open_bars(symbol, number)}
            own = within(BARS, (number,), (number + 1,))
            found = joined(BARS, self.batches(database.bars, BARS, own))
            rows |= {("bar", *bar) for bar in saved_bars(found).tolist()}
        return rows

    # What a market is restored from.

    def _state(
        self, database: Documents, head: Head, max_streams: int, lateness_ns: int
    ) -> SavedState:
        symbols = list(database.symbols.find({}).sort("number"))
        known = [each for each in symbols if "session" in each]
        which, rows = [], []
        for place, symbol in enumerate(known):
            opened = _open_bars(symbol, place)
            rows += opened
            if "past" in symbol:
                rows.append((place, SESSION_LENGTH, 0, *symbol["past"].values()))
            latest_ns = max((bar[3] for bar in opened), default=MIN_NS)
            for _, interval_ns, *_ in opened:
                start_ns = max(MIN_NS, latest_ns - lateness_ns - interval_ns + 1)
                first = (symbol["number"], interval_ns, start_ns)
                which.append(within(BARS, first, (*first[:2], MAX_NS)))
        places = np.zeros(max((each["number"] for each in known), default=0) + 1, np.int64)
        places[[each["number"] for each in known]] = range(len(known))
        found = [np.array(rows, SAVED_BAR)]
        for begin in range(0, len(which), _RANGES):
            ranges = {"$or": which[begin : begin + _RANGES]}
            amendable = saved_bars(joined(BARS, self.batches(database.bars, BARS, ranges)))
            amendable["symbol"] = places[amendable["symbol"]]
            found.append(amendable)
        bars = np.concatenate(found)
        streams = database.streams.find({"next": {"$ne": None}}).sort("heard", -1)
        positions = {each["_id"]: each["next"] for each in streams.limit(max_streams)}
        return SavedState(
            symbols=[each["_id"] for each in known],
            sessions=np.array([tuple(each["session"].values()) for each in known], SESSION),
            bars=bars[np.lexsort((bars["start_ns"], bars["interval_ns"], bars["symbol"]))],
            positions=dict(reversed(positions.items())),
            counts=dict(head.counts),
            lots={
                each["_id"]: each["lot"] for each in symbols if each["lot"] and each["trade_count"]
            },
        )


def _streams(
    database: Documents, head: Head, step: Step
) -> tuple[dict[str, StoredStream], dict[str, bool]]:
    """Return the streams of a step's runs, and which of them have their first number by it."""
    names = list({run.stream_id: None for run in step.runs})
    stored = documents_by_id(database.streams, names)
    parted = {run.stream_id for run in step.runs if run.is_part}
    streams: dict[str, StoredStream] = {}
    is_new: dict[str, bool] = {}
    for name in names:
        found = stored.get(name, {"number": 0, "next": None, "has_parts": False})
        is_new[name] = not found["number"]
        number = found["number"] or head.streams + sum(is_new.values())
        has_parts = found["has_parts"] or name in parted
        streams[name] = StoredStream(number, found["next"], has_parts)
    return streams, is_new


def _stream_values(
    stream: StoredStream, moved: Sequence[StoredStream], number: int
) -> dict[str, Any]:
    """Return the values of a stream's document after a step."""
    values: dict[str, Any] = {"number": Int64(stream.number), "has_parts": stream.has_parts}
    for place, each in enumerate(moved):
        if each is stream:
            assert stream.position is not None
            values |= {
                "next": Int64(stream.position),
                "heard": Int64(number * _HEARD + min(place, _HEARD - 1)),
            }
    return values


def _symbol_changes(
    step: Step, used: Mapping[int, str], numbers: NDArray[np.int64], trades: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """Return what changes of the symbols of a step, which has `trades` that are new."""
    symbol, first, added = np.unique(trades[0], return_index=True, return_counts=True)
    latest = trades[1, first + added - 1]
    totals = {
        number: (count, at_ns)
        for number, count, at_ns in zip(
            symbol.tolist(), added.tolist(), latest.tolist(), strict=True
        )
    }
    sessions = dict(zip(step.changed.tolist(), step.sessions, strict=True))
    # Of the closed bars, the past sessions alone are in the symbol's document too.
    own = step.bars[(step.bars["is_open"] == 1) | (step.bars["interval_ns"] == SESSION_LENGTH)]
    own = own[np.argsort(own["symbol"], kind="stable")]
    changes = []
    for index, name in used.items():
        begin, end = np.searchsorted(own["symbol"], [index, index + 1])
        count, at_ns = totals.get(int(numbers[index]), (0, MIN_NS))
        change = symbol_change(
            name,
            added=count,
            latest_ns=at_ns,
            lot=step.lots.get(index, 0),
            session=sessions.get(index),
            bars=own[begin:end],
        )
        if len(change) > 1:
            changes.append(change)
    return changes


def _removed(symbol: Mapping[str, Any], deleted: int, before_ns: int) -> list[str]:
    """Return the fields of a symbol that go with its trades before a time."""
    removed = []
    if "past" in symbol and symbol["past"]["start_ns"] < before_ns:
        removed.append("past")
    if symbol["trade_count"] == deleted:
        if "session" in symbol and symbol["session"]["timestamp"] < before_ns:
            removed.append("session")
        removed += [
            f"open_bars.{interval}"
            for interval, bar in symbol.get("open_bars", {}).items()
            if bar["last_ns"] < before_ns
        ]
    return removed


def _open_bars(symbol: Mapping[str, Any], place: int) -> list[tuple[int, ...]]:
    """Return rows of SAVED_BAR."""
    return [
        (place, int(interval), 1, bar["start_ns"], *(bar[name] for name in BAR_FIELDS))
        for interval, bar in symbol.get("open_bars", {}).items()
    ]


def _keys(rows: set[tuple[Any, ...]]) -> set[tuple[int, ...]]:
    """Return the keys of the closed bars among rows: symbol, length, start."""
    return {(row[1], row[2], row[4]) for row in rows if row[0] == "bar" and not row[3]}


def _session_rows(step: Step, names: Sequence[str]) -> list[tuple[Any, ...]]:
    return [(name, *row) for name, row in zip(names, step.sessions.tolist(), strict=True)]
