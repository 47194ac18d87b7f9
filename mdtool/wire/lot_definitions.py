"""The lots of symbols, as definition records of a DBN stream tell them.

A lot is what one unit of a symbol's sizes stands for. The definition's `unit_of_measure` is `LOT`,
and its `unit_of_measure_qty` the lot.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Final

import numpy as np

from mdtool.core.batch import Batch
from mdtool.core.dtypes import record_length
from mdtool.core.interleaved import Interleaved
from mdtool.core.records import Records
from mdtool.wire.dbn_records import CONTROL_RTYPES, DTYPES, RTYPE_DEFINITION

LOT_UNIT: Final = "LOT"
CURRENCY: Final = "X"
"""The class of instruments whose lots are fractions: of currencies, as exchanges have them."""
_DEFINITION: Final = DTYPES[RTYPE_DEFINITION]


class LotRepeater:
    """Repeats the definitions of lots where a stream that was derived does not have them.

    Streams derived from others are those of one schema, of some times or symbols, or bars.
    """

    def __init__(self) -> None:
        self._written: set[str] = set()

    def feed(self, batch: Batch | Interleaved) -> Iterator[Batch | Interleaved]:
        """Yield a batch, after the definitions of lots that its records need."""
        if len(batch.instruments.definitions) <= len(self._written):
            yield batch
            return
        for run in batch.runs():
            if len(run) and run.rtype == RTYPE_DEFINITION:
                self._written.update(lot_definitions(run.records))
            elif len(run) and run.rtype not in CONTROL_RTYPES:
                yield from self._missing(run)
            yield run

    def _missing(self, batch: Batch) -> Iterator[Batch]:
        """Yield the definitions that no record was yet for, with the ids of the records."""
        used, first = np.unique(batch.instrument, return_index=True)
        for index, at in zip(used.tolist(), first.tolist(), strict=True):
            name = batch.instruments[index].name or ""
            definition = batch.instruments.definitions.get(name)
            if definition is None or name in self._written:
                continue
            self._written.add(name)
            record = definition.copy()
            record["instrument_id"] = batch.records["instrument_id"][at]
            yield Batch(record, batch.instruments, batch.instrument[at : at + 1])


def lot_definitions(definitions: Records) -> dict[str, Records]:
    """Return those of some definition records that have a lot, by symbol, the latest of each."""
    unit = LOT_UNIT.encode()
    return {
        definitions["raw_symbol"][at].decode("ascii", "replace"): definitions[at : at + 1]
        for at in np.flatnonzero(definitions["unit_of_measure"] == unit).tolist()
    }


def lot_steps(definitions: Records) -> dict[str, int]:
    """Return the lots in definition records, in units of 1e-9, by symbol."""
    return {
        symbol: int(record["unit_of_measure_qty"][0])
        for symbol, record in lot_definitions(definitions).items()
    }


def lot_definition(
    instrument_id: int, symbol: str, step: int, ts_ns: int, instrument_class: str = CURRENCY
) -> Records:
    """Return the definition record of a symbol of which a lot is known, and nothing else.

    Parameters
    ----------
    instrument_id : int
    symbol : str
    step : int
        The lot, in units of 1e-9.
    ts_ns : int
        Of the record.
    instrument_class : str
        One character, as in definitions.
    """
    definition = _undefined().copy()
    definition["instrument_id"] = definition["raw_instrument_id"] = instrument_id
    definition["ts_event"] = definition["ts_recv"] = ts_ns
    definition["raw_symbol"] = symbol.encode()
    definition["instrument_class"] = instrument_class.encode()
    definition["unit_of_measure"] = LOT_UNIT.encode()
    definition["unit_of_measure_qty"] = step
    return definition


@functools.cache
def _undefined() -> Records:
    """Return a definition of which nothing is known."""
    record = np.zeros(1, _DEFINITION)
    for name in _DEFINITION.names or ():
        kind = _DEFINITION[name]
        if kind.kind in "iu":
            record[name] = np.iinfo(kind).max
    for name in ("publisher_id", "leg_count", "leg_index", "leg_instrument_id"):
        record[name] = 0
    record["length"], record["rtype"] = record_length(_DEFINITION), RTYPE_DEFINITION
    record["match_algorithm"], record["security_update_action"] = b" ", b"A"
    record["user_defined_instrument"], record["leg_side"] = b"N", b"N"
    return record
