"""Folders and zips of a batch job: the DBN files in them.

A file in a zip has a path like one in a folder: `job.zip/day.dbn.zst`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import stat
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from mdtool.core.errors import InputError
from mdtool.core.units import counted

log = logging.getLogger(__name__)

_ZIP_MAGIC: Final = (b"PK\x03\x04", b"PK\x05\x06")
_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")
"""The magic, and how many bytes of name and of extra fields follow (APPNOTE.TXT, 4.3.7)."""
_ENCRYPTED: Final = 1
_DBN: Final = ".dbn"
_NAMED_AT_MOST: Final = 3
_CACHED_ZIPS: Final = 4


class Member(NamedTuple):
    """Where a file is in a zip.

    Attributes
    ----------
    archive : str
        The path of the zip.
    begin : int
        The byte at which its data begin.
    stored_bytes : int
        How many bytes of the zip they are.
    size_bytes : int
        How many bytes the file has.
    is_deflated : bool
        Whether the data are compressed.
    """

    archive: str
    begin: int
    stored_bytes: int
    size_bytes: int
    is_deflated: bool


def find_member(path: str) -> Member | None:
    """Return where a path such as `job.zip/day.dbn.zst` is in a zip, None where it is in none.

    Raises
    ------
    InputError
        When the zip is damaged, has no such file, or one that cannot be read.
    """
    archive = next((parent for parent in Path(path).parents if parent.is_file()), None)
    if archive is None or not is_zip(str(archive)):
        return None
    name = Path(path).relative_to(archive).as_posix()
    members = _members(str(archive))
    if name not in members:
        raise InputError(f"{path}: no such file in the zip")
    info = members[name]
    if info.flag_bits & _ENCRYPTED:
        raise InputError(f"{path}: is encrypted; unzip it")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        method = zipfile.compressor_names.get(info.compress_type, info.compress_type)  # type: ignore[attr-defined]
        raise InputError(f"{path}: is compressed with {method} in the zip; unzip it")
    return Member(
        str(archive),
        _data_begin(archive, info, path),
        info.compress_size,
        info.file_size,
        info.compress_type == zipfile.ZIP_DEFLATED,
    )


def is_zip(path: str) -> bool:
    """Return whether a regular file begins as a zip does."""
    try:
        with Path(path).open("rb") as file:
            is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            return is_file and file.read(4) in _ZIP_MAGIC
    except OSError:
        return False


def files_of(path: str) -> list[str] | None:
    """Return the files of a folder or a zip, in order of their names, None for anything else.

    Hidden files and further folders are left out.

    Raises
    ------
    InputError
        When it cannot be read.
    """
    if Path(path).is_dir():
        try:
            names = [entry.name for entry in os.scandir(path) if entry.is_file()]
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error
    elif Path(path).is_file() and is_zip(path):
        names = [name for name in _members(path) if not name.endswith("/")]
    else:
        return None
    shown = (name for name in names if not Path(name).name.startswith("."))
    return [f"{path.rstrip('/')}/{name}" for name in sorted(shown)]


def dbn_paths(paths: Iterable[str], is_dbn: Callable[[str], bool]) -> list[str]:
    """Return paths with the DBN files of each folder and zip in its place.

    Parameters
    ----------
    paths : iterable of str
    is_dbn : callable
        Returns whether the file of a path holds DBN, whatever its name.

    Raises
    ------
    InputError
        When a folder or zip cannot be read, or has no DBN file.
    """
    return [file for path in paths for file in _dbn_files(path, is_dbn)]


def _dbn_files(path: str, is_dbn: Callable[[str], bool]) -> Sequence[str]:
    files = files_of(path)
    if files is None:
        return [path]
    found, others = [], []
    for file in files:
        name = Path(file).name
        if _DBN in Path(name).suffixes or (not name.endswith(".json") and is_dbn(file)):
            found.append(file)
        else:
            others.append(name)
    strange = [name for name in others if not name.endswith(".json")]
    kind = "folder" if Path(path).is_dir() else "zip"
    if not found:
        has = f"; it has {_few(others)}" if others else ""
        raise InputError(f"{path}: is a {kind} without DBN files{has}")
    if strange:
        log.warning(
            "%s: left out %s, not DBN: %s", path, counted(len(strange), "file"), _few(strange)
        )
    return found


def _few(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more:,} more" if more > 0 else "")


def _members(archive: str) -> dict[str, zipfile.ZipInfo]:
    status = Path(archive).stat()
    return _read_members(archive, status.st_mtime_ns, status.st_size)


@functools.lru_cache(_CACHED_ZIPS)
def _read_members(archive: str, _mtime_ns: int, _size: int) -> dict[str, zipfile.ZipInfo]:
    with _zip_errors(archive), zipfile.ZipFile(archive) as file:
        return {info.filename: info for info in file.infolist()}


def _data_begin(archive: Path, info: zipfile.ZipInfo, path: str) -> int:
    with _zip_errors(path), archive.open("rb") as file:
        file.seek(info.header_offset)
        magic, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        if magic != _ZIP_MAGIC[0]:
            raise InputError(f"{path}: damaged zip (its header is not there)")
        return info.header_offset + _LOCAL_HEADER.size + int(name_bytes + extra_bytes)


@contextlib.contextmanager
def _zip_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError) as error:
        raise InputError(f"{name}: damaged zip ({error})") from error
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from error
