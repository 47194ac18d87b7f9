"""The layout of a table: which records have its columns."""

from __future__ import annotations

import logging

import databento_dbn as dbn
import numpy as np

from mdtool.core.batch import Batch
from mdtool.core.interleaved import Interleaved
from mdtool.core.records import Records
from mdtool.core.units import counted
from mdtool.wire.dbn_records import CONTROL_RTYPES, RTYPES, SHOWN_DTYPES

log = logging.getLogger(__name__)


class Layout:
    """Accepts records of one layout: that of the stream's schema, else of its first data.

    Other records are counted; control records of a live stream are not data.

    Parameters
    ----------
    metadata : databento_dbn.Metadata
    rtype : int, optional
        Of the records, where it is known without a schema.

    Attributes
    ----------
    dtype : numpy dtype or None
        None until it is known.
    """

    def __init__(self, metadata: dbn.Metadata, rtype: int | None = None) -> None:
        self.rtype = rtype
        self._left_out = 0
        if metadata.schema is not None:
            self.rtype = RTYPES[str(metadata.schema)]

    @property
    def dtype(self) -> np.dtype[np.void] | None:
        """The layout of the accepted records, None until it is known."""
        return None if self.rtype is None else SHOWN_DTYPES[self.rtype]

    def fitting(self, batch: Batch | Interleaved) -> Batch | Interleaved | None:
        """Return the records that have the table's columns, None for none; count the others."""
        if isinstance(batch, Interleaved):
            return batch.of_parts(lambda part: self._fits(part.records))
        return batch if self._fits(batch.records) else None

    def _fits(self, records: Records) -> bool:
        """Return whether records of one rtype have the table's columns; count them if not."""
        if len(records) == 0:
            return False
        rtype = int(records["rtype"][0])
        if rtype in CONTROL_RTYPES:
            return False
        if self.rtype is None:
            self.rtype = rtype
        if records.dtype == self.dtype:
            return True
        self._left_out += len(records)
        return False

    def report(self, name: str) -> None:
        """Log how many records of the data were skipped, if any."""
        if self._left_out:
            log.warning(
                "%s: left out %s with other columns; use -J or -D for all",
                name,
                counted(self._left_out, "record"),
            )
