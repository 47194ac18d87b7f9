"""The files of datasets: found in folders, and opened for reading."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from mdtool.adapters.datasets.arrow import Tables
from mdtool.adapters.datasets.csv import CsvFile
from mdtool.adapters.datasets.parquet import ParquetFile
from mdtool.adapters.datasets.port import DatasetFile
from mdtool.adapters.dbn_files import open_source
from mdtool.core.errors import InputError

log = logging.getLogger(__name__)

_DBN: Final = (".dbn", ".dbn.zst")
_TABLES: Final[dict[str, Callable[[Path, Tables], DatasetFile]]] = {
    ".parquet": ParquetFile,
    ".csv": CsvFile,
}
_EXTENSIONS: Final = (*_TABLES, *_DBN)
_SKIPPED: Final = (".", "_")
"""Prefixes of names that readers of datasets skip."""


def find_files(paths: Sequence[str]) -> list[Path]:
    """Return the files of datasets, those of a folder sorted by name.

    Raises
    ------
    InputError
        When a path does not exist, a folder has no such files, or a format is unknown.
    """
    found: list[Path] = []
    for name in paths:
        path = Path(name)
        if path.is_dir():
            found += _files_in(path)
        elif not path.exists():
            raise InputError(f"{path}: no such file or folder")
        elif not path.name.endswith(_EXTENSIONS):
            raise InputError(
                f"{path}: is not a file of a dataset; they end in {', '.join(_EXTENSIONS)}"
            )
        else:
            found.append(path)
    return found


def is_dbn(path: Path) -> bool:
    """Return whether a file of `find_files` is DBN."""
    return path.name.endswith(_DBN)


def open_files(paths: Sequence[Path]) -> list[DatasetFile]:
    """Check the columns of every file, and return those of Parquet and CSV.

    Raises
    ------
    InputError
        When one cannot be read, lacks columns or has others.
    """
    for path in filter(is_dbn, paths):
        open_source(str(path)).close()
    tables = Tables()
    return [_TABLES[path.suffix](path, tables) for path in paths if not is_dbn(path)]


def _files_in(folder: Path) -> list[Path]:
    inside = [path for path in sorted(folder.rglob("*")) if not path.is_dir()]
    inside = [path for path in inside if not _is_skipped(path.relative_to(folder))]
    known = [path for path in inside if path.name.endswith(_EXTENSIONS)]
    if not known:
        raise InputError(f"{folder}: has no {', '.join(_EXTENSIONS)} files in it")
    if len(known) < len(inside):
        other = next(path for path in inside if path not in known)
        log.warning(
            "%s: skipped %d other files, such as %s", folder, len(inside) - len(known), other
        )
    return known


def _is_skipped(path: Path) -> bool:
    return any(part.startswith(_SKIPPED) for part in path.parts)
