"""mdtool: a command-line toolkit for streams of market data.

`read`, `bars` and `book` are its Python API. They are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdtool.api import Batch, BookSnapshot, bars, book, read
    from mdtool.core.errors import MdtoolError

    __version__: str

__all__ = ["Batch", "BookSnapshot", "MdtoolError", "__version__", "bars", "book", "read"]


def __getattr__(name: str) -> Any:
    """Return what the package exports, imported on first use."""
    if name == "__version__":
        from importlib.metadata import version

        return version("mdtool")
    if name == "MdtoolError":
        from mdtool.core.errors import MdtoolError

        return MdtoolError
    if name in __all__:
        from mdtool import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
