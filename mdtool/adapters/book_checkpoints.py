"""Checkpoints of order books beside a DBN file, from which reading can start in the middle of it.

The checkpoints of `day.dbn` are in `day.dbn.mdtool-book`: a magic line, a line of JSON that
identifies the file, then for each checkpoint a line of JSON and its arrays in a zstd frame.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import zstandard

from mdtool import __version__
from mdtool.adapters.dbn_files import open_source
from mdtool.adapters.dbn_select import SchemaSource
from mdtool.adapters.dbn_source import DbnSource, Position
from mdtool.core.batch import Batch
from mdtool.core.dtypes import MBO, SYMBOL_MAPPING
from mdtool.core.errors import OutputError, UsageError
from mdtool.core.instruments import Instruments
from mdtool.core.records import Records
from mdtool.engine.book import kernel
from mdtool.engine.book.image import Part, books_of, image_of
from mdtool.engine.book.rebuild import Rebuild

Array = npt.NDArray[Any]

log = logging.getLogger(__name__)

SUFFIX: Final = ".mdtool-book"
_MAGIC: Final = b"checkpoints of order books, written by mdtool\n"
_FORMAT: Final = 2
_MAX_LINE_BYTES: Final = 1 << 24
_SAMPLE_BYTES: Final = 1 << 16
"""So much of a file's beginning and of its end goes into its digest."""
_LEVEL: Final = 1
_HELD: Final = "held"
_HELD_INSTRUMENT: Final = "held_instrument"
_MAPPINGS: Final = "mappings"
_DTYPES: Final = {
    _HELD: MBO,
    _HELD_INSTRUMENT: np.dtype("<u4"),
    _MAPPINGS: SYMBOL_MAPPING,
}
_WORD: Final = np.dtype("<i8")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The books of a file at one position in it.

    Attributes
    ----------
    position : Position
        The place.
    rebuild : Rebuild
        Has taken all records before it.
    mappings : array of SYMBOL_MAPPING
        Those before it.
    instruments : Instruments
        Those of the books.
    """

    position: Position
    rebuild: Rebuild
    mappings: Records
    instruments: Instruments


class CheckpointWriter:
    """Writes the checkpoints of a file. They replace existing ones when it is closed.

    Parameters
    ----------
    path : str
        A DBN file.

    Raises
    ------
    UsageError
        When it is not a regular file.
    OutputError
        When there cannot be a file beside it.
    """

    def __init__(self, path: str) -> None:
        if not Path(path).is_file():
            raise UsageError(f"{path}: is not a file, beside which checkpoints are stored")
        self.name = path + SUFFIX
        self._path = Path(f"{self.name}.{os.getpid()}")
        self._is_empty = True
        with self._wrapped():
            self._file: BinaryIO = self._path.open("xb")
            self._file.write(_MAGIC + _line(_identity(Path(path))))

    def write(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint, of a place after those before.

        Raises
        ------
        OutputError
            When the disk is full, say.
        """
        rebuild = checkpoint.rebuild
        image = image_of(rebuild.books)
        arrays: dict[str, Array] = {name: part.used for name, part in image.items()}
        held = rebuild.events.held
        arrays |= {
            _HELD: held.records,
            _HELD_INSTRUMENT: held.instrument,
            _MAPPINGS: checkpoint.mappings,
        }
        frame = zstandard.compress(b"".join(array.tobytes() for array in arrays.values()), _LEVEL)
        head = {
            "offset": checkpoint.position.offset,
            "records": checkpoint.position.records,
            "latest_ns": rebuild.latest_ns,
            "instruments": checkpoint.instruments.save(),
            "rows": {name: part.rows for name, part in image.items()},
            "shapes": {name: array.shape for name, array in arrays.items()},
            "bytes": len(frame),
            "crc32": zlib.crc32(frame),
        }
        with self._wrapped():
            self._file.write(_line(head) + frame)
        self._is_empty = False

    def close(self) -> None:
        """Replace existing checkpoints by the new ones, if there are any.

        Raises
        ------
        OutputError
            As `write`.
        """
        with self._wrapped():
            self._file.close()
            if self._is_empty:
                self._path.unlink()
            else:
                self._path.replace(self.name)

    @contextlib.contextmanager
    def _wrapped(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._path.unlink(missing_ok=True)
            raise OutputError(f"{self.name}: {error.strerror}") from error


class CheckpointedSource(SchemaSource):
    """The MBO records of a file, with a checkpoint written after each `every` of them.

    Parameters
    ----------
    path : str
    rebuild : Rebuild
        Takes the records of each array before the next one is requested.
    every : int
    at_ns : int, optional
        There are no checkpoints behind the first record that is later: the books lack such records.

    Raises
    ------
    UsageError, OutputError
        As `CheckpointWriter`.
    InputError
        When the file cannot be read, or is not MBO.
    """

    def __init__(self, path: str, rebuild: Rebuild, every: int, at_ns: int | None = None) -> None:
        with contextlib.ExitStack() as opened:
            self._file = opened.enter_context(open_source(path))
            super().__init__(self._file, "mbo")
            self._writer = CheckpointWriter(path)
            opened.pop_all()
        self._rebuild = rebuild
        self._every = every
        self._at_ns = at_ns

    def __iter__(self) -> Iterator[Batch]:
        mappings = np.empty(0, SYMBOL_MAPPING)
        left, is_within = self._every, True
        for batch in super().__iter__():
            if batch.records.dtype == SYMBOL_MAPPING:
                mappings = np.append(mappings, batch.records)
            if batch.records.dtype != MBO:
                yield batch
                continue
            is_within = is_within and not self._has_later(batch)
            if not is_within:
                yield batch
                continue
            begin = 0
            while len(batch) - begin >= left:
                yield batch[begin : begin + left]
                begin += left
                left = self._every
                position = self._file.position_before(len(batch) - begin)
                self._writer.write(Checkpoint(position, self._rebuild, mappings, self.instruments))
            if begin < len(batch):
                yield batch[begin:]
                left -= len(batch) - begin

    def _has_later(self, batch: Batch) -> bool:
        return self._at_ns is not None and bool((batch.index_timestamps > self._at_ns).any())

    def close(self) -> None:
        """Write the checkpoints' file, and close both."""
        super().close()
        self._writer.close()


def enter(
    path: str, at_ns: int, symbols: Sequence[str] | None = None
) -> tuple[DbnSource, Rebuild] | None:
    """Open a file at its last checkpoint before a time.

    Parameters
    ----------
    path : str
    at_ns : int
    symbols : sequence of str, optional
        The names of the instruments to select.

    Returns
    -------
    source and rebuild, or None
        The rest of the file and its books so far; None where there is no such checkpoint, as
        `nearest_checkpoint` explains.

    Raises
    ------
    InputError
        As `open_source`.
    """
    instruments = Instruments()
    if symbols is not None:
        instruments.select(symbols)
    checkpoint = nearest_checkpoint(path, at_ns, instruments)
    if checkpoint is None:
        return None
    source = open_source(path, instruments)
    source.resume(checkpoint.position)
    source.learn(checkpoint.mappings)
    return source, checkpoint.rebuild


def nearest_checkpoint(path: str, at_ns: int, instruments: Instruments) -> Checkpoint | None:
    """Return the last checkpoint of a file before any record that is later than a time.

    Its instruments are entered into `instruments`, which is empty.

    None where there is none. Checkpoints that are not valid are ignored with a warning: the file
    has changed since, or they are of another file or version of mdtool, or damaged.
    """
    sidecar = Path(path + SUFFIX)
    if not sidecar.is_file() or not Path(path).is_file():
        return None
    try:
        with sidecar.open("rb") as file:
            _check(file, _identity(Path(path)))
            return _nearest(file, at_ns, instruments)
    except _UntrustedError as error:
        log.warning("%s: ignored, because it %s; --checkpoint-every recreates it", sidecar, error)
    except (OSError, ValueError, KeyError, TypeError, zstandard.ZstdError) as error:
        log.warning(
            "%s: ignored, because it is damaged (%s); --checkpoint-every recreates it",
            sidecar,
            error,
        )
    return None


class _UntrustedError(Exception):
    """The checkpoints are not of this file as it is now."""


def _check(file: BinaryIO, expected: dict[str, Any]) -> None:
    """Read the lines before the checkpoints."""
    if file.readline(_MAX_LINE_BYTES) != _MAGIC:
        raise _UntrustedError("is not a file of checkpoints")
    found = json.loads(file.readline(_MAX_LINE_BYTES))
    if any(found[name] != expected[name] for name in ("format", "mdtool", "kernel")):
        raise _UntrustedError("is of another version of mdtool")
    if found != expected:
        raise _UntrustedError("is of another file, or of this one before it changed")


def _nearest(file: BinaryIO, at_ns: int, instruments: Instruments) -> Checkpoint | None:
    nearest = None
    while line := file.readline(_MAX_LINE_BYTES):
        head = json.loads(line)
        if head["latest_ns"] > at_ns:
            break
        nearest = head, file.tell()
        file.seek(head["bytes"], os.SEEK_CUR)
    if nearest is None:
        return None
    head, begins_at = nearest
    file.seek(begins_at)
    frame = file.read(head["bytes"])
    if len(frame) != head["bytes"] or zlib.crc32(frame) != head["crc32"]:
        raise ValueError(f"at byte {begins_at}")
    return _decoded(head, zstandard.decompress(frame), instruments)


def _decoded(head: dict[str, Any], data: bytes, instruments: Instruments) -> Checkpoint:
    arrays = {}
    offset = 0
    for name, shape in head["shapes"].items():
        arrays[name] = np.ndarray(shape, _DTYPES.get(name, _WORD), data, offset)
        offset += arrays[name].nbytes
    mappings = arrays.pop(_MAPPINGS)
    held = Batch(arrays.pop(_HELD), instruments, arrays.pop(_HELD_INSTRUMENT).copy())
    books = books_of({name: Part(head["rows"][name], array) for name, array in arrays.items()})
    position = Position(head["offset"], head["records"])
    instruments.restore(head["instruments"])
    return Checkpoint(position, Rebuild(books, held, head["latest_ns"]), mappings, instruments)


def _identity(path: Path) -> dict[str, Any]:
    """Return the identity of a file, which changes with its content."""
    status = path.stat()
    with path.open("rb") as file:
        sample = file.read(_SAMPLE_BYTES)
        file.seek(max(0, status.st_size - _SAMPLE_BYTES))
        sample += file.read(_SAMPLE_BYTES)
    return {
        "format": _FORMAT,
        "mdtool": __version__,
        # Any change of the kernel may change what its state means.
        "kernel": _digest(Path(kernel.__file__).read_bytes()),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "digest": _digest(sample),
    }


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"
