"""Commits steps to MongoDB without transactions: by one document, and then what follows from it.

The document of the collection `market` has a number, which every commit raises by one from the
number that it read: of several writers one succeeds, and the others read again. With the number it
stores the whole change, which from then on is certain. Then the change is applied, document by
document. Each document has the number of the change that it saw last, and takes only later ones;
so a change may be applied again, by whoever finds it unfinished, and counts once.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import bson
import numpy as np
from bson.binary import Binary
from bson.int64 import Int64
from numpy.typing import NDArray
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from mdtool.adapters.stores.errors import (
    StoreClaimedError,
    StoreFormatError,
    StoreUnavailableError,
)
from mdtool.adapters.stores.mongodb.connection import DUPLICATE, Documents
from mdtool.adapters.stores.mongodb.documents import (
    BAR_FIELDS,
    BARS,
    TRADES,
    named,
    packed,
    unpacked,
)
from mdtool.adapters.stores.mongodb.reader import STORE, VERSION
from mdtool.adapters.stores.port import MIN_NS
from mdtool.adapters.stores.sql import TRADE_COLUMNS
from mdtool.engine.saved_state import SAVED_BAR, SESSION

_PART_BYTES: Final = 8 << 20
"""Bytes of a change in one document, which may have 16 MB."""
_INSERTS: Final = 20_000
_UPDATES: Final = 20
"""Updates of one request: FerretDB keeps a connection to SQLite for each, of 100 that it has."""
_NAMES: Final = 1_000
_PATIENCE_S: Final = 1.0
"""How long a writer waits for another one to finish its change, before it does that itself."""
_PAUSE_S: Final = 0.01
_BAR_COLUMNS: Final = len(SAVED_BAR.names or ())
_OPEN_BAR: Final = ("start_ns", *BAR_FIELDS)
_SESSION: Final = SESSION.names or ()


@dataclass(frozen=True, slots=True)
class Head:
    """What the latest commit left: its number, and how many symbols and streams have numbers."""

    number: int
    symbols: int
    streams: int
    counts: Mapping[str, int]


class Commits:
    """The commits of one writer.

    Parameters
    ----------
    address : str
        The name of the store in messages.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._writer = uuid.uuid4().hex
        self.epoch: int | None = None
        """Of the claim to the market; with one, nothing is committed after another claim."""

    def create(self, database: Documents) -> None:
        """Create the document of a new store.

        Raises
        ------
        StoreFormatError
            When the database is another program's.
        """
        names = set(database.list_collection_names())  # before: the document is a store's first
        if database.market.find_one(STORE, {"_id": 1}) is None:
            others = sorted(each for each in names - {"market"} if not each.startswith("system."))
            foreign = {"_id": {"$ne": STORE["_id"]}}  # the store's may have been created meanwhile
            if others or database.market.find_one(foreign, {"_id": 1}) is not None:
                raise StoreFormatError(
                    f"{self._address}: has other collections than those of a store "
                    f"({', '.join(others or ['market'])}); name another database"
                )
            blank = {
                **STORE,
                "version": VERSION,
                **named(("number", "symbols", "streams", "epoch", "beat"), (0,) * 5),
                "is_pending": False,
                "holder": None,
                "counts": [],
            }
            insert(database.market, [blank])

    def settled(self, database: Documents) -> Head:
        """Return the latest commit once what follows from it is written.

        Raises
        ------
        StoreUnavailableError
            When the store is gone.
        """
        seen, ends_s = -1, 0.0
        while True:
            found = database.market.find_one(STORE, {"payload": 0})
            if found is None:
                raise StoreUnavailableError(f"{self._address}: there is no store any more")
            if not found["is_pending"]:
                counts = {each["name"]: each["total"] for each in found["counts"]}
                return Head(found["number"], found["symbols"], found["streams"], counts)
            if found["number"] != seen:
                seen, ends_s = found["number"], time.monotonic() + _PATIENCE_S
            if found["writer"] == self._writer or time.monotonic() > ends_s:
                self._finish(database, seen)
            else:
                time.sleep(_PAUSE_S)

    def commit(
        self,
        database: Documents,
        head: Head,
        change: Mapping[str, Any],
        counts: Mapping[str, int] | None = None,
    ) -> bool:
        """Commit a change that was made from what `head` left, and apply it.

        Returns
        -------
        bool
            Whether it was; otherwise another writer committed one before.

        Raises
        ------
        StoreClaimedError
            When another process has claimed the market meanwhile.
        """
        number = head.number + 1
        payload = bson.encode(change)
        inline, rest = payload[:_PART_BYTES], payload[_PART_BYTES:]
        parts = [
            {"_id": f"{self._writer}-{number}-{at}", "number": number, "payload": Binary(part)}
            for at in range(0, len(rest), _PART_BYTES)
            for part in [rest[at : at + _PART_BYTES]]
        ]
        for part in parts:
            database.parts.replace_one({"_id": part["_id"]}, part, upsert=True)
        total = {**head.counts}
        for name, value in (counts or {}).items():
            total[name] = max(value, total.get(name, value))
        fence: dict[str, Any] = {**STORE, "number": head.number, "is_pending": False}
        if self.epoch is not None:
            fence["epoch"] = self.epoch
        state = {
            **named(
                ("number", "symbols", "streams"),
                (
                    number,
                    head.symbols + len(change.get("new_symbols", ())),
                    head.streams + change.get("new_streams", 0),
                ),
            ),
            "is_pending": True,
            "writer": self._writer,
            "counts": [{"name": name, "total": Int64(value)} for name, value in total.items()],
            "payload": Binary(inline),
            "parts": [part["_id"] for part in parts],
        }
        if not database.market.update_one(fence, {"$set": state}).matched_count:
            self._check_claim(database)
            return False
        apply(database, number, change)
        _forget(database, number, parts)
        return True

    def _check_claim(self, database: Documents) -> None:
        found = database.market.find_one(STORE, {"epoch": 1}) or {}
        if self.epoch is not None and found.get("epoch") != self.epoch:
            raise StoreClaimedError(f"{self._address}: another process claimed the store meanwhile")

    def _finish(self, database: Documents, number: int) -> None:
        """Apply a change that another writer, or an attempt before, committed."""
        found = database.market.find_one({**STORE, "number": number, "is_pending": True})
        if found is None:
            return
        payload = bytes(found["payload"])
        for name in found["parts"]:
            part = database.parts.find_one({"_id": name})
            if part is None:  # it was applied meanwhile
                return
            payload += part["payload"]
        apply(database, number, bson.decode(payload))
        _forget(database, number, found["parts"])


def apply(database: Documents, number: int, change: Mapping[str, Any]) -> None:
    """Write what follows from a commit, as far as it is not written yet."""
    insert(database.symbols, [_blank_symbol(each) for each in change.get("new_symbols", ())])
    trades = unpacked(change.get("trades", b""), TRADE_COLUMNS)
    for begin in range(0, trades.shape[1], _INSERTS):
        if begin and not _is_pending(database, number):
            return
        insert(database.trades, TRADES.encode(trades[:, begin : begin + _INSERTS]))
    bars = unpacked(change.get("bars", b""), _BAR_COLUMNS)
    is_replaced = change.get("is_replaced", False)
    _put_bars(database, number, bars[:, bars[2] == 0], is_replaced=is_replaced)
    for each in change.get("deleted_trades", ()):
        database.trades.delete_many({"_id": {"$gte": each["first"], "$lte": each["last"]}})
    for each in change.get("deleted_bars", ()):
        which = {"_id": {"$gte": each["first"], "$lt": each["end"]}, "step": {"$lt": number}}
        database.bars.delete_many(which)
    removed = change.get("removed_bars", ())
    for begin in range(0, len(removed), _NAMES):
        which = {"_id": {"$in": removed[begin : begin + _NAMES]}, "step": {"$lt": number}}
        database.bars.delete_many(which)
    _put_symbols(database, number, change.get("symbols", ()), is_replaced=is_replaced)
    _put_streams(database, number, change.get("streams", ()))
    done = {"$set": {"is_pending": False}, "$unset": {"payload": "", "parts": ""}}
    database.market.update_one({**STORE, "number": number, "is_pending": True}, done)


def blank_stream(stream_id: str, owner: str | None = None) -> dict[str, Any]:
    """Return the document of a stream of which nothing is stored."""
    return {
        "_id": stream_id,
        **named(("number", "heard", "step"), (0, 0, 0)),
        "next": None,
        "has_parts": False,
        "owner": owner,
    }


def insert(collection: Any, documents: Sequence[Any]) -> list[int]:
    """Insert documents, unless they are stored; return the places of those that are."""
    if not documents:
        return []
    try:
        collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        failed = error.details["writeErrors"]
        if error.details.get("writeConcernErrors") or any(
            each["code"] != DUPLICATE for each in failed
        ):
            raise
        return sorted(each["index"] for each in failed)
    return []


def documents_by_id(collection: Any, names: Sequence[Any]) -> dict[Any, dict[str, Any]]:
    """Return the documents that are stored of some."""
    found: dict[Any, dict[str, Any]] = {}
    for begin in range(0, len(names), _NAMES):
        which = {"_id": {"$in": list(names[begin : begin + _NAMES])}}
        found.update((each["_id"], each) for each in collection.find(which))
    return found


def symbol_change(
    name: str,
    *,
    added: int = 0,
    latest_ns: int = MIN_NS,
    lot: int = 0,
    session: NDArray[np.void] | None = None,
    bars: NDArray[np.void] | None = None,
) -> dict[str, Any]:
    """Return what changes of a symbol; `bars` are its open ones and past sessions."""
    change: dict[str, Any] = {"_id": name}
    if added:
        change |= named(("added", "latest_ns"), (added, latest_ns))
    if lot:
        change["lot"] = Int64(lot)
    if session is not None:
        change["session"] = Binary(session.tobytes())
    if bars is not None and len(bars):
        change["bars"] = Binary(bars.tobytes())
    return change


def packed_bars(bars: NDArray[np.void]) -> Binary:
    """Return SAVED_BAR[n] as a change has them."""
    return packed(bars.view(np.int64).reshape(-1, _BAR_COLUMNS).T)


def _is_pending(database: Documents, number: int) -> bool:
    """Return whether nobody else has finished a change: others may have deleted trades since."""
    which = {**STORE, "number": number, "is_pending": True}
    return database.market.find_one(which, {"_id": 1}) is not None


def _forget(database: Documents, number: int, parts: Sequence[Any]) -> None:
    """Delete the parts of a change that was applied, and those of attempts before."""
    if parts:
        database.parts.delete_many({"number": {"$lte": number}})


def _blank_symbol(each: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "_id": each["_id"],
        **named(
            ("number", "trade_count", "last_trade_at", "lot", "step"),
            (each["number"], 0, MIN_NS, 0, 0),
        ),
    }


def _put_bars(
    database: Documents, number: int, bars: NDArray[np.int64], *, is_replaced: bool
) -> None:
    """Write closed bars, SAVED_BAR's columns; of those that are stored, those with more trades."""
    columns = np.vstack([bars[[0, 1, 3]], bars[4:], np.full((1, bars.shape[1]), number)])
    for begin in range(0, bars.shape[1], _INSERTS):
        chunk = columns[:, begin : begin + _INSERTS]
        documents = BARS.encode(chunk)
        updates = []
        for place in insert(database.bars, documents):
            values = named((*BAR_FIELDS, "step"), chunk[3:, place].tolist())
            which: dict[str, Any] = {"_id": BARS.key(*chunk[:3, place].tolist())}
            which["step"] = {"$lt": number}
            if not is_replaced:
                which["count"] = {"$lte": values["count"]}
            updates.append(UpdateOne(which, {"$set": values}))
        _update(database.bars, updates)


def _put_symbols(
    database: Documents, number: int, changes: Sequence[Mapping[str, Any]], *, is_replaced: bool
) -> None:
    stored = documents_by_id(database.symbols, [each["_id"] for each in changes])
    updates = []
    for change in changes:
        document = stored[change["_id"]]
        if document["step"] < number:
            which = {"_id": change["_id"], "step": {"$lt": number}}
            update = _symbol_update(document, change, is_replaced=is_replaced)
            update["$set"]["step"] = Int64(number)
            updates.append(UpdateOne(which, update))
    _update(database.symbols, updates)


def _symbol_update(
    stored: Mapping[str, Any], change: Mapping[str, Any], *, is_replaced: bool
) -> dict[str, dict[str, Any]]:
    """Return the update of a symbol's document, of which nothing moves back but by intent."""
    values: dict[str, Any] = {}
    update: dict[str, dict[str, Any]] = {"$set": values}
    if "added" in change:
        update["$inc"] = {"trade_count": Int64(change["added"])}
    if "latest_ns" in change:
        update["$max"] = {"last_trade_at": Int64(change["latest_ns"])}
    if "totals" in change:
        values |= {name: Int64(value) for name, value in change["totals"].items()}
    if "lot" in change and not stored["lot"]:
        values["lot"] = Int64(change["lot"])
    removed = set(change.get("removed", ()))
    if "session" in change:
        (session,) = np.frombuffer(change["session"], SESSION).tolist()
        new = named(_SESSION, session)
        old = None if is_replaced else stored.get("session")
        if old is None or new["count"] >= old["count"] or new["timestamp"] > old["timestamp"]:
            values["session"] = new
    if is_replaced:
        values["open_bars"] = {}
        removed.add("past")
    values |= _changed_bars({} if is_replaced else stored, change)
    for name in removed - values.keys():
        update.setdefault("$unset", {})[name] = ""
    return update


def _changed_bars(stored: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return the open bars and the latest past session, where they change."""
    values: dict[str, Any] = {}
    opened, past = dict(stored.get("open_bars", {})), stored.get("past")
    for bar in np.frombuffer(change.get("bars", b""), SAVED_BAR).tolist():
        new, series = named(_OPEN_BAR, bar[3:]), str(bar[1])
        if not bar[2]:
            if past is None or _rank(new) >= _rank(past):
                past = values["past"] = new
        elif series not in opened or _rank(new) >= _rank(opened[series]):
            opened[series] = new
            values["open_bars"] = opened
    return values


def _rank(bar: Mapping[str, int]) -> tuple[int, int]:
    return bar["start_ns"], bar["count"]


def _put_streams(database: Documents, number: int, changes: Iterable[Mapping[str, Any]]) -> None:
    changes = list(changes)
    insert(database.streams, [blank_stream(each["_id"]) for each in changes if each["is_new"]])
    _update(
        database.streams,
        [
            UpdateOne(
                {"_id": each["_id"], "step": {"$lt": number}},
                {"$set": {**each["values"], "step": Int64(number)}},
            )
            for each in changes
        ],
    )


def _update(collection: Any, updates: Sequence[UpdateOne]) -> None:
    for begin in range(0, len(updates), _UPDATES):
        collection.bulk_write(updates[begin : begin + _UPDATES], ordered=False)
