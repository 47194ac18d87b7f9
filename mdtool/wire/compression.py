"""zstd streams, recognised by their magic bytes and unwrapped in pieces of any size."""

from __future__ import annotations

from typing import Final

import zstandard

from mdtool.core.errors import InputError

MAGIC_BYTES: Final = 4
_FRAME: Final = 0xFD2FB528
_SKIPPABLE_FRAMES: Final = range(0x184D2A50, 0x184D2A60)


def is_zstd(head: bytes) -> bool:
    """Tell whether the first `MAGIC_BYTES` of a stream begin a zstd frame, a skippable one too."""
    magic = int.from_bytes(head[:MAGIC_BYTES], "little")
    return magic == _FRAME or magic in _SKIPPABLE_FRAMES


class Unwrapper:
    """Gives back what was compressed, however the compressed bytes were cut into pieces.

    A stream may have any number of frames: Databento writes the metadata of some files as a frame
    of its own.

    Attributes
    ----------
    is_inside_frame : bool
        Whether a frame has begun that has not ended.
    """

    def __init__(self) -> None:
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self.is_inside_frame = False

    def feed(self, data: bytes) -> bytes:
        """Return everything that `data` completes, perhaps nothing.

        Raises
        ------
        InputError
            When the bytes are no zstd, or damaged.
        """
        pieces = []
        while data:
            try:
                pieces.append(self._frame.decompress(data))
            except zstandard.ZstdError as error:
                raise InputError(f"damaged zstd ({error})") from error
            data = self._frame.unused_data
            self.is_inside_frame = not self._frame.eof
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
