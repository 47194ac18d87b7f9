"""The keys of sources: from the environment, or a file that nobody else can read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from mdtool.core.errors import InputError, UsageError
from mdtool.core.private_files import read_private


def find_keys(source: str, names: Sequence[str], path: str) -> dict[str, str]:
    """Return the values of the variables that name a source's keys.

    Parameters
    ----------
    source : str
    names : sequence of str
        The variables.
    path : str
        A file with `NAME=VALUE` on each line, which goes before the environment; empty for none.

    Raises
    ------
    UsageError
        When one is missing.
    InputError
        When the file cannot be read, or others may read it.
    """
    given: Mapping[str, str] = {**os.environ, **(_read(path) if path else {})}
    missing = [name for name in names if not given.get(name)]
    if missing:
        raise UsageError(
            f"{source}: needs a key; set {' and '.join(missing)} in the environment, or in a file "
            "that --keys names"
        )
    return {name: given[name] for name in names}


def _read(path: str) -> dict[str, str]:
    keys = {}
    for number, line in enumerate(read_private(path).splitlines(), 1):
        name, is_key, value = line.partition("=")
        if is_key and not line.startswith("#"):
            keys[name.strip()] = value.strip()
        elif line.strip() and not line.startswith("#"):
            # The line may hold a key: it is not shown.
            raise InputError(f"{path}: line {number} is not NAME=VALUE")
    return keys
