"""DBN files as one stream that can be read again and again, and known again by its identity."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mdtool.adapters.byte_source import STDIN
from mdtool.adapters.dbn_files import open_merged
from mdtool.adapters.dbn_select import Selection, selected
from mdtool.adapters.dbn_source import RecordSource
from mdtool.core.errors import InputError

_SAMPLE_BYTES: Final = 1 << 16
_IDENTITY_CHARS: Final = 32


@dataclass(frozen=True, slots=True)
class Recording:
    """Files merged by time, and what is wanted of them.

    Attributes
    ----------
    paths : sequence of str
    schema : str, optional
        The only one whose records are wanted.
    selection : Selection, optional
        Which symbols and times are wanted.
    """

    paths: Sequence[str]
    schema: str | None = None
    selection: Selection | None = None

    def open(self) -> RecordSource:
        """Begin to read.

        Raises
        ------
        UsageError, InputError
            As `open_merged`.
        """
        return selected(open_merged(self.paths, self.schema), self.selection)

    def identity(self) -> str:
        """Return what stands for the records and their order: 32 hexadecimal digits.

        It is made of what is wanted, and of each file's size, head and tail: whoever changes a
        file between these without changing its size goes unnoticed.

        Raises
        ------
        InputError
            When there is no such file, or it cannot be read more than once.
        """
        digest = hashlib.sha256()
        for path in self.paths:
            for part in _samples(path):
                digest.update(len(part).to_bytes(8, "little") + part)
        digest.update(repr((self.schema, *_choices(self.selection))).encode())
        return digest.hexdigest()[:_IDENTITY_CHARS]


def _samples(path: str) -> Iterator[bytes]:
    if path == STDIN:
        raise InputError("stdin: can be read only once; give files")
    try:
        with Path(path).open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{path}: cannot be read more than once; give a file")
            yield status.st_size.to_bytes(8, "little")
            yield file.read(_SAMPLE_BYTES)
            file.seek(max(status.st_size - _SAMPLE_BYTES, 0))
            yield file.read(_SAMPLE_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _choices(selection: Selection | None) -> tuple[object, ...]:
    if selection is None:
        return ()
    symbols = selection.symbols and sorted(selection.symbols)
    return (symbols, selection.start_ns, selection.end_ns)
