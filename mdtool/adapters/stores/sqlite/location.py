"""Where a SQLite store is, as its URL says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import parse_qsl

from mdtool.core.errors import ConfigError

_PREFIX: Final = "sqlite:///"
_FORM: Final = f"{_PREFIX}PATH[?synchronous=full|normal]"
_SYNCHRONOUS: Final = ("full", "normal")


@dataclass(frozen=True, slots=True)
class Location:
    """A file, and how sure of the disk a write is.

    Attributes
    ----------
    path : Path
        Absolute.
    synchronous : str
        `full`: what was written outlives a loss of power. `normal`: it outlives the end of any
        process, but a loss of power may take the latest writes.
    """

    path: Path
    synchronous: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return what a URL says.

        Parameters
        ----------
        url : str
            `sqlite:///PATH`, so that an absolute path comes after four slashes; then, if need be,
            `?synchronous=normal`.

        Raises
        ------
        ConfigError
            When it says nothing, or something else.
        """
        place, _, query = url.partition("?")
        name = place.removeprefix(_PREFIX)
        if not place.startswith(_PREFIX) or not name:
            raise ConfigError(f"{url}: names no SQLite file; say {_FORM}")
        if name == ":memory:":
            raise ConfigError(f"{url}: a store in memory keeps nothing; say {_FORM}")
        options = dict(parse_qsl(query, keep_blank_values=True))
        synchronous = options.pop("synchronous", _SYNCHRONOUS[0])
        if options or synchronous not in _SYNCHRONOUS:
            raise ConfigError(f"{url}: {query} is no option of a SQLite store; say {_FORM}")
        return cls(Path(os.path.abspath(name)), synchronous)  # noqa: PTH100 - takes `..` out

    @property
    def address(self) -> str:
        """What it is, for people."""
        return f"sqlite {self.path}"
