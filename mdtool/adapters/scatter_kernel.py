"""The same bytes to many sockets, each with a beginning of its own, in one call."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdtool.core.jit import external, kernel

_writev: Any = external("writev", "intp(int32, voidptr, int32)")


@kernel
def scatter(
    descriptors: NDArray[np.int64],
    starts: NDArray[np.uint8],
    start_ends: NDArray[np.int64],
    rest: NDArray[np.uint8],
    written: NDArray[np.int64],
) -> None:
    """Write to each descriptor its own start and then the rest, as far as it takes them.

    A loop in Python takes as long for each socket again as the system does. Nothing waits:
    descriptors are to be non-blocking.

    Parameters
    ----------
    descriptors : int64[n]
        Sockets; one below 0 is passed over.
    starts : uint8[start_ends[-1]]
        The starts, one after the other.
    start_ends : int64[n]
        Where each of them ends.
    rest : uint8[m]
        What follows each start.
    written : int64[n]
        Overwritten: how many bytes each descriptor took; -1 where it took none, for being full,
        broken or passed over.
    """
    # An array of two `struct iovec`.
    vector = np.empty(4, np.int64)
    vector[2] = rest.ctypes.data
    vector[3] = rest.size
    begin = 0
    for i in range(descriptors.size):
        vector[0] = starts.ctypes.data + begin
        vector[1] = start_ends[i] - begin
        begin = start_ends[i]
        written[i] = -1
        if descriptors[i] >= 0:
            written[i] = _writev(descriptors[i], vector.ctypes, 2)
