"""Order books as JSON lines, one for each record that made them what they are."""

from __future__ import annotations

import json
from typing import Final

import numpy as np
import numpy.typing as npt

from mdtool.wire.book_line_kernel import LEVEL_BYTES, LINE_BYTES, write_lines

ROW_WORDS: Final = 9
"""What a row has beside the four words of each level."""


class BookLines:
    """Writes lines about the books of instruments.

    Notes
    -----
    A line is what `Snapshot.as_dict` gives, without the anomalies, and with the record: its
    `ts_event`, `sequence`, `action`, `side`, `price`, `size` and `flags`. Prices and 64-bit times
    are strings; what is undefined is null. Between the records of an event a book may look
    crossed: where it ends, `flags` has F_LAST.
    """

    def __init__(self) -> None:
        self._texts: npt.NDArray[np.object_] | None = None
        self._encoded = np.empty(0, np.uint8)
        self._ends = np.zeros(1, np.int64)

    def encode(
        self,
        rows: npt.NDArray[np.int64],
        symbol: npt.NDArray[np.uint32],
        texts: npt.NDArray[np.object_],
        publishers: npt.NDArray[np.object_],
    ) -> memoryview:
        """Return lines, each with its newline.

        Parameters
        ----------
        rows : int64[n, 9 + 4 * depth]
            As `Books.states` yields them.
        symbol : uint32[n]
            Each row's index in `texts` and `publishers`.
        texts : object array
            Symbols as strings.
        publishers : object array
            Names of publishers, None for unknown ones. They change only together with `texts`.
        """
        if texts is not self._texts:
            self._texts = texts
            encoded = [
                f'{json.dumps(text)},"publisher":{json.dumps(publisher)}'.encode()
                for text, publisher in zip(texts, publishers, strict=True)
            ]
            self._encoded = np.frombuffer(b"".join(encoded), np.uint8)
            self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        longest = int(np.diff(self._ends).max(initial=0))
        depth = (rows.shape[1] - ROW_WORDS) // 4
        room = LINE_BYTES + longest + (2 * depth + 2) * LEVEL_BYTES
        out = np.empty(len(rows) * room, np.uint8)
        ends = np.empty(len(rows), np.int64)
        n_bytes = write_lines(rows, symbol.astype(np.int64), self._encoded, self._ends, out, ends)
        return out[:n_bytes].data
