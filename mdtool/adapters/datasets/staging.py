"""Files and folders that appear all at once: written beside their place, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mdtool.adapters.datasets.partitions import KEYS
from mdtool.core.errors import OutputError

_PART: Final = ".part"
_OLD: Final = ".old"


@contextlib.contextmanager
def staged(target: Path, extension: str, replaces: bool, is_folder: bool) -> Iterator[Path]:
    """Yield where to write what is to be at `target` once the block has ended without an error.

    Until then, whatever is at `target` stays as it is. After an error nothing is left of what was
    written.

    Parameters
    ----------
    target : Path
    extension : str
        Of the files of a folder: only a folder without other files may be replaced.
    replaces : bool
        Whether what is at `target` may give way.
    is_folder : bool
        Whether to yield a folder, rather than the path of a file.

    Raises
    ------
    OutputError
        When something is there that may not be replaced, or nothing can be written.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100 - symbolic links stay as they are
    _check_place(target, extension, replaces, is_folder)
    scratch = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # A name with a dot before it is passed over by those who read a whole folder.
        scratch = Path(tempfile.mkdtemp(_PART, f".{target.name}.", target.parent))
        made = scratch / target.name
        if is_folder:
            made.mkdir()
        yield made
        if is_folder:
            _put_folder(made, target, scratch)
        else:
            _put_file(made, target, replaces)
    except OSError as error:
        # Arrow's own errors say the rest of it in words of theirs.
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OutputError(f"{target}: {reason}; nothing was written") from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until what a file or folder holds has reached the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _check_place(target: Path, extension: str, replaces: bool, is_folder: bool) -> None:
    if not is_folder:
        if target.is_dir():
            raise OutputError(f"{target}: is a folder; give a file, or --partition date,symbol")
        if target.exists() and not replaces:
            raise OutputError(f"{target}: exists already; -f replaces it")
        return
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target}: is a file; give a folder, or --partition none")
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not replaces:
        raise OutputError(f"{target}: exists already; -f replaces it")
    for path in target.rglob("*"):
        if not _is_of_dataset(path.relative_to(target), path.is_dir(), extension):
            raise OutputError(f"{target}: holds {path.relative_to(target)}; -f replaces datasets")


def _is_of_dataset(path: Path, is_dir: bool, extension: str) -> bool:
    folders = path.parts if is_dir else path.parts[:-1]
    return all(part.partition("=")[0] in KEYS for part in folders) and (
        is_dir or path.name.endswith(extension)
    )


def _put_file(made: Path, target: Path, replaces: bool) -> None:
    sync(made)
    if replaces:
        made.replace(target)
        return
    try:
        target.hardlink_to(made)  # fails where something is there by now, as a rename would not
    except FileExistsError as error:
        raise OutputError(f"{target}: exists already; -f replaces it") from error
    except PermissionError:  # a file system without hard links
        made.rename(target)


def _put_folder(made: Path, target: Path, scratch: Path) -> None:
    if target.is_dir() and any(target.iterdir()):
        target.rename(scratch / f"{target.name}{_OLD}")
    made.rename(target)
