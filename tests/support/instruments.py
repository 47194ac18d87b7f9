"""Bare records as batches: every publisher and id is an instrument of one table, without a name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import databento_dbn as dbn
import numpy as np

from mdtool.core.batch import Batch, Resolver
from mdtool.core.dtypes import MBO
from mdtool.core.instruments import Instruments
from mdtool.core.records import Records

_RESOLVER = Resolver(Instruments(), "tests")


def batch(records: Records) -> Batch:
    """Return records of a stream without mappings."""
    return _RESOLVER.batch(records)


def index_of(publisher_id: int, instrument_id: int) -> int:
    """Return the index that `batch` gives an instrument."""
    record = np.zeros(1, MBO)
    record["publisher_id"], record["instrument_id"] = publisher_id, instrument_id
    return int(batch(record).instrument[0])


def bare(batches: Iterable[Batch]) -> Iterator[Records]:
    """Yield the records of batches."""
    return (batch.records for batch in batches)


def named(records: Records, metadata: dbn.Metadata) -> Batch:
    """Return records of a stream with the mappings of a header."""
    return Resolver(Instruments(), "tests", metadata).batch(records)
