"""Which records fit into a table, whose rows all have the same columns."""

from __future__ import annotations

import logging

import databento_dbn as dbn
import numpy as np

from mdtool.core.records import Records
from mdtool.core.units import counted
from mdtool.wire.dbn_records import CONTROL_RTYPES, DTYPES, RTYPES

log = logging.getLogger(__name__)


class Layout:
    """Lets records of one layout through: that of the stream's schema, else of its first data.

    What is left out is counted; what a live stream says about itself is not data.

    Attributes
    ----------
    dtype : numpy dtype or None
        None until it is known.
    """

    def __init__(self, metadata: dbn.Metadata) -> None:
        self.rtype: int | None = None
        self._left_out = 0
        if metadata.schema is not None:
            self.rtype = RTYPES[str(metadata.schema)]

    @property
    def dtype(self) -> np.dtype[np.void] | None:
        """The layout of all that fits, None as long as it is open."""
        return None if self.rtype is None else DTYPES[self.rtype]

    def fits(self, records: Records) -> bool:
        """Tell whether records of one rtype have the table's columns; count them where not."""
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
        """Say on the log how many records of the data did not fit, if any."""
        if self._left_out:
            log.warning(
                "%s: left out %s with other columns; -J or -D take all",
                name,
                counted(self._left_out, "record"),
            )
