"""Files of keys and other secrets, which nobody but their owner may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from mdtool.core.errors import InputError

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def read_private(path: str, encoding: str = "utf-8") -> str:
    """Return the text of a file of keys.

    Parameters
    ----------
    path : str
    encoding : str

    Raises
    ------
    InputError
        When it cannot be read, is not text of the encoding, or others may read it.
    """
    try:
        with Path(path).open(encoding=encoding) as file:
            if os.fstat(file.fileno()).st_mode & _OTHERS:
                raise InputError(f"{path}: others may read the keys in it; chmod 600 {path}")
            return file.read()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except UnicodeError as error:
        raise InputError(f"{path}: is not {encoding.upper()} text") from error
