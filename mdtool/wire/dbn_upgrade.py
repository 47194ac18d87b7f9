"""Records of DBN v1 and v2 brought to the newest layout."""

from __future__ import annotations

import databento_dbn as dbn
import numpy as np

from mdtool.core.records import Records
from mdtool.wire.dbn_records import DTYPES


def upgrade(data: bytes, rtype: int, version: int) -> Records:
    """Return records of an older version in the layout of the newest.

    Parameters
    ----------
    data : bytes
        Whole records of one rtype, as `version` lays them out, without `ts_out`.
    rtype, version : int

    Returns
    -------
    structured array of `DTYPES[rtype]`, shape (n,)

    Notes
    -----
    These records (definitions, statistics, symbol mappings, system and error messages) are few
    beside the market data, which is the same in every version; databento_dbn itself converts them
    one by one.
    """
    decoder = dbn.DBNDecoder(has_metadata=False, input_version=version)
    upgraded = b"".join(bytes(record) for record in decoder.write_and_decode(data))
    return np.frombuffer(upgraded, DTYPES[rtype])
