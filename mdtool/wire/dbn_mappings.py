"""Symbol mapping records of live streams, repeated where later ones do not hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import databento_dbn as dbn
import numpy as np

from mdtool.core.batch import Batch, Resolver
from mdtool.core.dtypes import SYMBOL_MAPPING
from mdtool.core.instruments import Instrument, Instruments
from mdtool.core.interleaved import Interleaved
from mdtool.core.records import Records, index_timestamps
from mdtool.core.symbology import dated_mappings
from mdtool.core.units import NS_PER_DAY, UNDEF_TIMESTAMP
from mdtool.wire.dbn import encode_records
from mdtool.wire.dbn_records import CONTROL_RTYPES

_RAW_SYMBOL: Final = dbn.SType("raw_symbol")


class MappingRepeater:
    """Repeats mapping records where the latest one of an id does not hold for a record.

    Examples are the bar of a symbol whose id was remapped before it closed, and captures that are
    merged. Streams without mapping records, whose headers map ids by date, are not changed. Nobody
    has sent what is repeated: its `ts_out` is undefined.

    Parameters
    ----------
    metadata : databento_dbn.Metadata
        The header of the stream.

    Attributes
    ----------
    repeated : set of int
        The ids of the mapping records that were repeated.
    """

    def __init__(self, metadata: dbn.Metadata) -> None:
        self.repeated: set[int] = set()
        self._reader = Resolver(Instruments(), "output", metadata)
        self._is_live = False
        self._has_ts_out = metadata.ts_out

    def encode(self, batch: Batch | Interleaved) -> Iterator[memoryview]:
        """Yield the bytes of records in a DBN stream, with the mapping records that they need."""
        if isinstance(batch, Interleaved) and not self._is_live:
            merged = batch.with_ts_out() if self._has_ts_out else batch
            yield merged.words.view(np.uint8).data
            return
        for run in batch.runs():
            for part in self.feed(run):
                yield encode_records((part.with_ts_out() if self._has_ts_out else part).records)

    def feed(self, batch: Batch) -> Iterator[Batch]:
        """Yield the records of a batch, each after a mapping record where it needs one."""
        if batch.records.dtype == SYMBOL_MAPPING:
            self._is_live = True
            self._reader.learn(batch.records)
        if not self._is_live or not len(batch) or batch.rtype in CONTROL_RTYPES:
            yield batch
            return
        while len(batch):
            right = self._count_right(batch)
            if right:
                yield batch[:right]
            batch = batch[right:]
            if len(batch):
                instrument = batch.instruments[int(batch.instrument[0])]
                instrument_id = int(batch.records["instrument_id"][0])
                ts_ns = int(index_timestamps(batch.records)[0])
                mapping = mapping_record(instrument, instrument_id, ts_ns)
                self.repeated.add(instrument_id)
                self._reader.learn(mapping)
                yield Batch(mapping, batch.instruments, batch.instrument[:1])

    def _count_right(self, batch: Batch) -> int:
        """Return how many of the first records a reader would name right."""
        read = self._reader.batch(batch.records)
        ours, theirs = batch.instrument, read.instrument
        pairs, inverse = np.unique(np.stack([ours, theirs]), axis=1, return_inverse=True)
        is_wrong = np.array(
            [
                batch.instruments[our].name not in {None, read.instruments[their].name}
                for our, their in pairs.T.tolist()
            ],
            np.bool_,
        )[inverse]
        return int(is_wrong.argmax()) if is_wrong.any() else len(batch)


def appended_mappings(first: dbn.Metadata, header: dbn.Metadata) -> Records:
    """Return what the header of an appended file adds to the first one, as SYMBOL_MAPPING.

    The records of the two under the first header need them.
    """
    known = {(each.name, each.instrument_id, each.first_day) for each in dated_mappings(first)}
    added = [
        _record(each.name, 0, each.instrument_id, each.first_day * NS_PER_DAY)
        for each in dated_mappings(header)
        if (each.name, each.instrument_id, each.first_day) not in known
    ]
    return np.concatenate([np.empty(0, SYMBOL_MAPPING), *added])


def mapping_record(instrument: Instrument, instrument_id: int, ts_ns: int) -> Records:
    """Return the SYMBOL_MAPPING that gives an id the name of an instrument from a time on."""
    return _record(instrument.name or "", instrument.publisher_id, instrument_id, ts_ns)


def _record(name: str, publisher_id: int, instrument_id: int, ts_ns: int) -> Records:
    record = dbn.SymbolMappingMsg(
        publisher_id=publisher_id,
        instrument_id=instrument_id,
        ts_event=max(ts_ns, 0),
        stype_in=_RAW_SYMBOL,
        stype_in_symbol=name,
        stype_out=_RAW_SYMBOL,
        stype_out_symbol=name,
        start_ts=max(ts_ns, 0),
        end_ts=UNDEF_TIMESTAMP,
    )
    return np.frombuffer(bytes(record), SYMBOL_MAPPING)
