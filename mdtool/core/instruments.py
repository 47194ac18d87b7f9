"""Instruments: what the records of a stream are about.

DBN's `instrument_id` is valid within one dataset and one day, and one id may have several names.
An instrument is a dataset, a publisher and a raw symbol. Where no raw symbol is known (continuous
and parent names), the id within its mapping interval takes its place; an id that has no name on a
record's date is an instrument of its own. In memory, everything after the reader uses an
instrument's dense index.
"""

from __future__ import annotations

import dataclasses
import threading
from bisect import bisect_right
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, TypeAlias

import databento_dbn as dbn
import numpy as np
import numpy.typing as npt

from mdtool.core.errors import InputError
from mdtool.core.publishers import publisher_name
from mdtool.core.symbology import (
    FIRST_DAY,
    DatasetNames,
    Interval,
    Names,
    dated_mappings,
    parent_names,
)
from mdtool.core.units import NS_PER_DAY, format_price

Indices: TypeAlias = npt.NDArray[np.uint32]
"""Indices of instruments, one for each record."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """What a record is about.

    Attributes
    ----------
    dataset : str
    publisher_id : int
        0 where publishers are consolidated.
    instrument_id : int
        Under which it was first seen; it may have another on another day.
    names : tuple of str
        Its names on the dates of its records, the raw symbol first if that is known.
    label : str or None
        Its name in outputs: the one by which it was selected, else the first one; None where it has
        no name.
    is_selected : bool
        Whether the selection includes it; true where nothing was selected.
    """

    dataset: str
    publisher_id: int
    instrument_id: int
    names: tuple[str, ...]
    label: str | None
    is_selected: bool = True

    @property
    def name(self) -> str | None:
        """Its first name, whatever it was selected by; None where it has no name."""
        return self.names[0] if self.names else None

    @property
    def text(self) -> str:
        """The label, the decimal digits of the id where there is none."""
        return str(self.instrument_id) if self.label is None else self.label


def with_room(
    table: npt.NDArray[np.int64], instrument: npt.NDArray[np.integer], empty: int
) -> npt.NDArray[np.int64]:
    """Return a table with a row for each instrument: itself, or a larger copy.

    Parameters
    ----------
    table : int64[m, ...]
        By the instruments' indices.
    instrument : integers[n]
        For which there must be room.
    empty : int
        What new rows hold.
    """
    rows = int(instrument.max()) + 1 if len(instrument) else 0
    if rows <= len(table):
        return table
    larger = np.full((max(rows, 2 * len(table)), *table.shape[1:]), empty, np.int64)
    larger[: len(table)] = table
    return larger


def _hashable(value: Any) -> Hashable:
    """Return what JSON made of tuples as tuples again."""
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


class Instruments:
    """The instruments of a stream, each with a dense index from 0, as they are first seen.

    Streams that are merged share one table, so that an index means the same in all of them.

    Parameters
    ----------
    consolidates : bool
        Whether publishers make no difference: an instrument is a dataset and a symbol.

    Attributes
    ----------
    lots : dict of str to int
        What one unit of size stands for, in units of 1e-9, by symbol, where a live source gave it.
    definitions : dict of str to structured array, shape (1,)
        The records that said so.
    """

    def __init__(self, consolidates: bool = False) -> None:
        self.consolidates = consolidates
        self.lots: dict[str, int] = {}
        self.definitions: dict[str, npt.NDArray[np.void]] = {}
        self._datasets: dict[str, DatasetNames] = {}
        self._instruments: list[Instrument] = []
        self._identities: list[Hashable] = []
        self._index: dict[Hashable, int] = {}
        self._selected: tuple[str, ...] | None = None
        self._ids: list[list[tuple[int, int]]] = []
        """The ids of each instrument with their first days, in order of days."""
        self._columns: _Columns | None = None
        self._id_columns: _IdColumns | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._instruments)

    def __getitem__(self, index: int) -> Instrument:
        return self._instruments[index]

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._instruments)

    def give_lots(
        self,
        source: str,
        lots: Mapping[str, int],
        definitions: Mapping[str, npt.NDArray[np.void]],
    ) -> None:
        """Take the lots of symbols, which stay the same as long as the table is used.

        Parameters
        ----------
        source : str
            The name of the stream in errors.
        lots, definitions : mapping
            As the attributes.

        Raises
        ------
        InputError
            When a symbol has another one already, for sizes before and after would not add up.
        """
        for symbol, lot in lots.items():
            known = self.lots.setdefault(symbol, lot)
            if known != lot:
                raise InputError(
                    f"{source}: the lot of {symbol} is {format_price(lot)}, and "
                    f"{format_price(known)} before; read what has another lot by itself"
                )
            self.definitions.setdefault(symbol, definitions[symbol])

    def dataset_names(self, source: str, metadata: dbn.Metadata | None = None) -> DatasetNames:
        """Return the names of a stream's dataset, to which those of its header are added.

        Parameters
        ----------
        source : str
            The name of the stream in errors.
        metadata : databento_dbn.Metadata, optional
            Its header.

        Raises
        ------
        InputError
            When the header contradicts that of another stream of the same dataset about an id on
            a date.
        """
        name = metadata.dataset if metadata is not None else ""
        dataset = self._datasets.setdefault(name, DatasetNames(name))
        if metadata is not None:
            mappings = list(dated_mappings(metadata))
            dataset.add(source, [*mappings, *parent_names(metadata, mappings)])
        return dataset

    def select(self, names: Iterable[str]) -> None:
        """Select instruments by any of their names, before any record is resolved.

        Of an instrument that has several of the names, its raw symbol becomes its label, else one
        that holds as long as the instrument, else the first.
        An instrument without a name is selected by the decimal digits of its id.
        """
        self._selected = tuple(dict.fromkeys(names))

    @property
    def labels(self) -> npt.NDArray[np.object_]:
        """The label of each, shape (len,): a str, or None."""
        return self._as_columns().labels

    @property
    def texts(self) -> npt.NDArray[np.object_]:
        """As `labels`, but the decimal digits of the id where there is no name."""
        return self._as_columns().texts

    @property
    def selected(self) -> npt.NDArray[np.bool_]:
        """Whether the selection includes each, shape (len,)."""
        return self._as_columns().selected

    def have_name(self, names: Collection[str]) -> npt.NDArray[np.bool_]:
        """Return which instruments have one of some names, shape (len,)."""
        texts = self.texts
        return np.array(
            [
                text in names or any(name in names for name in instrument.names)
                for instrument, text in zip(self._instruments[: len(texts)], texts, strict=True)
            ],
            np.bool_,
        )

    @property
    def publisher_ids(self) -> npt.NDArray[np.uint16]:
        """The publisher of each, shape (len,)."""
        return self._as_columns().publisher_ids

    @property
    def publishers(self) -> npt.NDArray[np.object_]:
        """The name of each one's publisher, shape (len,): a str, or None where it has none."""
        return self._as_columns().publishers

    @property
    def first_of_symbol(self) -> npt.NDArray[np.int64]:
        """The first instrument with the dataset and symbol of each, whatever its publisher."""
        return self._as_columns().first_of_symbol

    def ids_on(
        self, instrument: npt.NDArray[np.integer], ts_ns: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.uint32]:
        """Return the ids that instruments have at times.

        Parameters
        ----------
        instrument : integer array, shape (n,)
            Their indices.
        ts_ns : int64 array, shape (n,)

        Returns
        -------
        uint32 array, shape (n,)
            The id on each time's UTC date; where none is known for it, that of the last date
            before on which one is, else of the first date after.
        """
        columns = self._as_id_columns()
        wanted = (instrument.astype(np.int64) << 32) + (ts_ns // NS_PER_DAY - FIRST_DAY)
        place = np.searchsorted(columns.keys, wanted, side="right") - 1
        is_before_all = (place < 0) | (columns.keys[place] >> 32 != instrument)
        ids: npt.NDArray[np.uint32] = columns.ids[place + is_before_all]
        return ids

    def resolve(
        self, dataset: DatasetNames, known: Names, publisher_id: int, instrument_id: int, day: int
    ) -> int:
        """Return the index of what an id of a publisher means, given its names on a day."""
        with self._lock:
            index = self._intern(dataset.name, publisher_id, instrument_id, known)
            raw = known.identity if isinstance(known.identity, str) else ""
            self._note_id(index, day, instrument_id, dataset.by_name.get(raw, ()))
            return index

    def save(self) -> list[Any]:
        """Return what `restore` takes, as JSON takes it."""
        return [
            (each.dataset, each.publisher_id, each.instrument_id, identity, each.names)
            for each, identity in zip(self._instruments, self._identities, strict=True)
        ]

    def restore(self, saved: Sequence[Any]) -> None:
        """Enter instruments into an empty table, with the indices that they had.

        Parameters
        ----------
        saved : sequence
            What `save` returned, perhaps with lists in place of tuples.
        """
        for dataset, publisher_id, instrument_id, identity, names in saved:
            known = Names(_hashable(identity), tuple(names))
            self._intern(dataset, publisher_id, instrument_id, known)

    def _intern(self, dataset: str, publisher_id: int, instrument_id: int, known: Names) -> int:
        publisher_id = 0 if self.consolidates else publisher_id
        label, is_selected = known.names[0] if known.names else None, True
        if self._selected is not None:
            candidates = known.names or (str(instrument_id),)
            chosen = next((name for name in candidates if name in self._selected), None)
            is_selected = chosen is not None
            if chosen is not None and known.names:
                label = chosen
        made = Instrument(dataset, publisher_id, instrument_id, known.names, label, is_selected)
        key = (dataset, publisher_id, known.identity, label)
        unnamed = (dataset, publisher_id, (instrument_id, FIRST_DAY), None)
        index = self._index.get(key)
        if index is None and known.is_first and unnamed in self._index:
            # The id was mapped after its first records, which were of this instrument.
            index = self._index[key] = self._index.pop(unnamed)
            self._instruments[index], self._identities[index] = made, known.identity
            self._columns = None
        elif index is None:
            index = self._index[key] = len(self._instruments)
            self._instruments.append(made)
            self._identities.append(known.identity)
            self._ids.append([(FIRST_DAY, instrument_id)])
            self._columns = self._id_columns = None
        elif not set(known.names) <= set(self._instruments[index].names):
            before = self._instruments[index]
            names = tuple(dict.fromkeys(before.names + known.names))
            self._instruments[index] = dataclasses.replace(before, names=names)
        return index

    def _note_id(self, index: int, day: int, instrument_id: int, dated: Sequence[Interval]) -> None:
        """Store the id of an instrument on a day, and those of its dated mappings."""
        ids = self._ids[index]
        if len(ids) == 1 and dated:
            ids[:] = [(interval.first_day, interval.instrument_id) for interval in dated]
            self._id_columns = None
        place = bisect_right(ids, day, key=lambda entry: entry[0]) - 1
        if ids[max(place, 0)][1] != instrument_id:
            ids.insert(place + 1, (day, instrument_id))
            self._id_columns = None

    def _as_columns(self) -> _Columns:
        columns = self._columns
        if columns is None:
            with self._lock:
                columns = self._columns = _Columns.of(self._instruments, self._identities)
        return columns

    def _as_id_columns(self) -> _IdColumns:
        columns = self._id_columns
        if columns is None:
            with self._lock:
                columns = self._id_columns = _IdColumns.of(self._ids)
        return columns


@dataclass(frozen=True, slots=True)
class _Columns:
    """The table as arrays, valid until it grows or changes."""

    labels: npt.NDArray[np.object_]
    texts: npt.NDArray[np.object_]
    selected: npt.NDArray[np.bool_]
    publisher_ids: npt.NDArray[np.uint16]
    publishers: npt.NDArray[np.object_]
    first_of_symbol: npt.NDArray[np.int64]

    @classmethod
    def of(cls, instruments: Sequence[Instrument], identities: Sequence[Hashable]) -> Self:
        labels = np.empty(len(instruments), np.object_)
        labels[:] = [instrument.label for instrument in instruments]
        texts = np.empty(len(instruments), np.object_)
        texts[:] = [instrument.text for instrument in instruments]
        publishers = np.empty(len(instruments), np.object_)
        publishers[:] = [publisher_name(instrument.publisher_id) for instrument in instruments]
        first: dict[Hashable, int] = {}
        symbols = [
            (instrument.dataset, identity, instrument.label)
            for instrument, identity in zip(instruments, identities, strict=True)
        ]
        return cls(
            labels=labels,
            texts=texts,
            selected=np.array([instrument.is_selected for instrument in instruments], np.bool_),
            publisher_ids=np.array([each.publisher_id for each in instruments], np.uint16),
            publishers=publishers,
            first_of_symbol=np.array(
                [first.setdefault(symbol, index) for index, symbol in enumerate(symbols)], np.int64
            ),
        )


class _IdColumns(NamedTuple):
    """The ids of all instruments as arrays: `index << 32 | day`, in order, and each one's id."""

    keys: npt.NDArray[np.int64]
    ids: npt.NDArray[np.uint32]

    @classmethod
    def of(cls, ids: Sequence[Sequence[tuple[int, int]]]) -> Self:
        rows = [
            ((index << 32) + day - FIRST_DAY, instrument_id)
            for index, known in enumerate(ids)
            for day, instrument_id in known
        ]
        keys, values = zip(*rows, strict=True)
        return cls(np.array(keys, np.int64), np.array(values, np.uint32))
