"""Records that have arrived together, and the instrument of each, which their reader resolves.

DBN's `instrument_id` is valid within one dataset and one day. A batch is resolved by the mappings
in force at its place in the stream, when that is first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Final, Self

import databento_dbn as dbn
import numpy as np
import numpy.typing as npt

from mdtool.core.dtypes import TRADE
from mdtool.core.instruments import Indices, Instruments
from mdtool.core.records import (
    Records,
    Times,
    as_words,
    index_timestamps,
    is_trade,
    trades_of,
    with_ts_out,
)
from mdtool.core.symbology import DatasetNames, Names, live_names, moving, without
from mdtool.core.symbols import SymbolMap
from mdtool.core.units import NS_PER_DAY

_KEEP_DAYS: Final = 4
"""Days whose look-up tables are in memory: a stream in order needs one, around midnight two."""


class Batch:
    """Records of one rtype that have arrived together, and the instrument of each.

    Parameters
    ----------
    records : structured array, shape (n,)
        As DBN lays them out.
    instruments : Instruments
        The table into which `instrument` points.
    instrument : uint32 array, shape (n,), or callable
        The index of each record's instrument, or what returns it when it is first needed.
    ts_out : uint64 array, shape (n,), optional
        When the gateway sent each record, of a stream whose header says that records have that.
    """

    __slots__ = ("_instrument", "instruments", "records", "ts_out")

    def __init__(
        self,
        records: Records,
        instruments: Instruments,
        instrument: Indices | Callable[[], Indices],
        ts_out: Times | None = None,
    ) -> None:
        self.records = records
        self.instruments = instruments
        self.ts_out = ts_out
        self._instrument = instrument

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, part: slice | npt.NDArray[np.bool_]) -> Batch:
        """Return some of the records: of a slice as views, of a mask as copies."""
        ts_out = None if self.ts_out is None else self.ts_out[part]
        return Batch(self.records[part], self.instruments, lambda: self.instrument[part], ts_out)

    def taken(self, places: npt.NDArray[np.intp]) -> Batch:
        """Return copies of the records at some places."""
        ts_out = None if self.ts_out is None else self.ts_out[places]
        return Batch(
            self.records[places], self.instruments, lambda: self.instrument[places], ts_out
        )

    @property
    def rtype(self) -> int:
        """DBN's record type, the same for all records; there is at least one."""
        return int(self.records["rtype"][0])

    @property
    def instrument(self) -> Indices:
        """The index of each record's instrument, by the mappings in force at its place."""
        if callable(self._instrument):
            self._instrument = self._instrument()
        return self._instrument

    @property
    def rtypes(self) -> frozenset[int]:
        """The record types that there are: one."""
        return frozenset([self.rtype])

    @property
    def index_timestamps(self) -> npt.NDArray[np.int64]:
        """The index timestamp of each record."""
        return index_timestamps(self.records)

    @property
    def words(self) -> npt.NDArray[np.int64]:
        """The records as the 64-bit words of a DBN stream, read-only."""
        return as_words(self.records)

    @property
    def n_bytes(self) -> int:
        """How many bytes the records take."""
        return self.records.nbytes

    def runs(self) -> Iterator[Batch]:
        """Yield the batch itself, whose records are of one rtype."""
        yield self

    @property
    def symbols(self) -> npt.NDArray[np.object_]:
        """The label of each record's instrument: a str, or None where it has no name."""
        # In this order: what is resolved may be new to the table.
        instrument = self.instrument
        return self.instruments.labels[instrument]

    @property
    def is_selected(self) -> npt.NDArray[np.bool_]:
        """Whether the selection includes each record's instrument, shape (n,)."""
        instrument = self.instrument
        selected: npt.NDArray[np.bool_] = self.instruments.selected[instrument]
        return selected

    @classmethod
    def of(cls, records: Records) -> Self:
        """Return records as a batch of a stream without mappings, with a table of its own."""
        instruments = Instruments()
        resolver = Resolver(instruments, "records")
        return cls(records, instruments, lambda: resolver.batch(records).instrument)

    @classmethod
    def empty(cls, dtype: np.dtype[np.void]) -> Self:
        """Return a batch of no records."""
        return cls(np.empty(0, dtype), Instruments(), np.empty(0, np.uint32))

    @classmethod
    def joined(cls, batches: Sequence[Self]) -> Self:
        """Return copies of the records of one or more batches, all of one layout and table."""
        filled = [batch for batch in batches if len(batch)]
        if len(filled) < 2:
            return filled[0] if filled else batches[0]
        return cls(
            np.concatenate([batch.records for batch in filled]),
            filled[0].instruments,
            np.concatenate([batch.instrument for batch in filled]),
        )

    def with_records(self, records: Records) -> Batch:
        """Return a batch of other records, one for each and of the same instruments."""
        return Batch(records, self.instruments, lambda: self.instrument, self.ts_out)

    def with_ts_out(self) -> Batch:
        """Return the records as a stream with `ts_out` has them: it is their last field."""
        return self.with_records(with_ts_out(self.records, self.ts_out))

    def trades(self) -> Batch:
        """Return the trades among MBO, trades or MBP records, as TRADE."""
        if self.records.dtype == TRADE:
            return self
        trades = self[is_trade(self.records)]
        return trades.with_records(trades_of(trades.records))


class LabelMap:
    """Renumbers instruments as symbols of another table, by their labels.

    Parameters
    ----------
    intern : callable
        Returns the table's index of a label, such as `SymbolTable.intern`, or None for a label
        that it does not accept. Without a name, the label is the digits of the id.
    """

    def __init__(self, intern: Callable[[str], int | None]) -> None:
        self._intern = intern
        self._texts: npt.NDArray[np.object_] | None = None
        self._indices = np.empty(0, np.uint32)

    def map(self, batch: Batch) -> npt.NDArray[np.uint32]:
        """Return the table's index of each record's label, `SymbolMap.MISSING` for none."""
        instrument, texts = batch.instrument, batch.instruments.texts
        if texts is not self._texts:
            self._texts = texts
            found = [self._intern(text) for text in texts]
            indices = [SymbolMap.MISSING if index is None else index for index in found]
            self._indices = np.array(indices, np.uint32)
        return self._indices[instrument]


class Resolver:
    """Resolves the records of one stream to instruments, by the mappings in force.

    Dated mappings of headers hold by the UTC date of a record's index timestamp; mapping records
    of a live stream hold for their id from their place in the stream on, on any date.

    Parameters
    ----------
    instruments : Instruments
        The table of the instruments, which streams that are merged share.
    source : str
        The name of the stream in errors.
    metadata : databento_dbn.Metadata, optional
        Its header.

    Raises
    ------
    InputError
        When the header contradicts that of another stream of the same dataset about an id on a
        date.
    """

    def __init__(
        self, instruments: Instruments, source: str, metadata: dbn.Metadata | None = None
    ) -> None:
        self.instruments = instruments
        self._dataset = instruments.dataset_names(source, metadata)
        self._state = _InForce(instruments, self._dataset, {})
        self._continuous: dict[str, int] = {}
        """The id that each continuous name has now."""

    def learn(self, mappings: Records) -> None:
        """Apply symbol mapping records to the batches that follow.

        Parameters
        ----------
        mappings : array of SYMBOL_MAPPING, shape (n,)
        """
        live = dict(self._state.live)
        for record in mappings:
            instrument_id = int(record["instrument_id"])
            before = live.get(instrument_id)
            names = live_names(record, before, self._dataset.is_known(instrument_id))
            if before is None or before.names != names.names:
                live[instrument_id] = names
            for name in moving(names):
                held_by = self._continuous.get(name, instrument_id)
                if held_by != instrument_id and name in live[held_by].names:
                    live[held_by] = without(live[held_by], name, held_by)
                self._continuous[name] = instrument_id
        if live != self._state.live:
            self._state = _InForce(self.instruments, self._dataset, live)

    def batch(self, records: Records, ts_out: Times | None = None) -> Batch:
        """Return the stream's next records, which are resolved when that is first needed."""
        state = self._state
        return Batch(records, self.instruments, lambda: state.resolve(records), ts_out)


class _InForce:
    """The mappings in force in a part of a stream."""

    def __init__(
        self, instruments: Instruments, dataset: DatasetNames, live: dict[int, Names]
    ) -> None:
        self.live = live
        self._instruments = instruments
        self._dataset = dataset
        self._days: dict[int, _Day] = {}

    def resolve(self, records: Records) -> Indices:
        """Return the index of each record's instrument."""
        if not len(records):
            return np.empty(0, np.uint32)
        keys = records.getfield(np.dtype("<u8"), 0) >> np.uint64(16)
        ts_ns = index_timestamps(records)
        first, last = int(ts_ns.min()) // NS_PER_DAY, int(ts_ns.max()) // NS_PER_DAY
        if first == last:
            return self._day(first).find(keys)
        days = ts_ns // NS_PER_DAY
        edges = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
        found = np.empty(len(days), np.uint32)
        for begin, end in pairwise(edges):
            found[begin:end] = self._day(int(days[begin])).find(keys[begin:end])
        return found

    def _day(self, day: int) -> _Day:
        table = self._days.get(day)
        if table is None:
            if len(self._days) == _KEEP_DAYS:
                del self._days[next(iter(self._days))]
            table = self._days[day] = _Day(lambda key: self._meaning(key, day))
        return table

    def _meaning(self, key: int, day: int) -> int:
        publisher_id, instrument_id = key & 0xFFFF, key >> 16
        known = self.live.get(instrument_id) or self._dataset.names_on(instrument_id, day)
        return self._instruments.resolve(self._dataset, known, publisher_id, instrument_id, day)


_EMPTY: Final = np.uint64(2**64 - 1)
_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST_SLOTS: Final = 64
_SLOTS_A_KEY: Final = 4


class _Day:
    """What publishers' ids mean on one day: a hash table that whole arrays are looked up in.

    Open addressing with linear probing; a key is a record's `instrument_id << 16 | publisher_id`.
    """

    def __init__(self, meaning: Callable[[int], int]) -> None:
        self._meaning = meaning
        self._taken = 0
        self._clear(_FIRST_SLOTS)

    def find(self, keys: npt.NDArray[np.uint64]) -> Indices:
        """Return the index of each key's instrument."""
        if len(keys) > 1 and (keys == keys[0]).all():
            return np.repeat(self.find(keys[:1]), len(keys))
        while True:
            slots = self._home(keys)
            wrong = np.flatnonzero(self._keys[slots] != keys)
            missing = [wrong[:0]]
            while len(wrong):
                is_free = self._keys[slots[wrong]] == _EMPTY
                missing.append(wrong[is_free])
                wrong = wrong[~is_free]
                slots[wrong] = (slots[wrong] + 1) & (len(self._keys) - 1)
                wrong = wrong[self._keys[slots[wrong]] != keys[wrong]]
            new = np.sort(np.concatenate(missing))
            if not len(new):
                return self._indices[slots]
            self._add(keys[new])

    def _home(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        return ((keys * _MULTIPLIER) >> self._shift).view(np.int64)

    def _add(self, first_seen: npt.NDArray[np.uint64]) -> None:
        """Enter keys in the order in which they were first seen, however the stream is cut."""
        keys = first_seen[np.sort(np.unique(first_seen, return_index=True)[1])]
        indices = np.array([self._meaning(key) for key in keys.tolist()], np.uint32)
        self._taken += len(keys)
        if self._taken * _SLOTS_A_KEY > len(self._keys):
            is_taken = self._keys != _EMPTY
            keys = np.concatenate([self._keys[is_taken], keys])
            indices = np.concatenate([self._indices[is_taken], indices])
            self._clear(1 << (self._taken * _SLOTS_A_KEY * 2 - 1).bit_length())
        for home, key, index in zip(self._home(keys).tolist(), keys, indices, strict=True):
            slot = home
            while self._keys[slot] != _EMPTY:
                slot = (slot + 1) & (len(self._keys) - 1)
            self._keys[slot], self._indices[slot] = key, index

    def _clear(self, slots: int) -> None:
        self._keys = np.full(slots, _EMPTY)
        self._indices = np.zeros(slots, np.uint32)
        self._shift = np.uint64(64 - (slots.bit_length() - 1))
