"""The tree of errors and the exit status of each."""

from __future__ import annotations

import re

import pytest

from mdtool.core import errors
from mdtool.core.errors import CorruptStreamError, MdtoolError


def _drawn() -> dict[str, tuple[int, int]]:
    """Return the depth and exit status of each class in the module's drawing."""
    drawing = re.findall(r"^([│├└─ ]*)(\w+)  +(\d+)", errors.__doc__ or "", re.MULTILINE)
    return {name: (len(indent) // 4, int(status)) for indent, name, status in drawing}


def _defined() -> list[type[MdtoolError]]:
    return [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, MdtoolError)
    ]


def test_the_drawing_names_every_error_once():
    assert sorted(_drawn()) == sorted(cls.__name__ for cls in _defined())


@pytest.mark.parametrize("cls", _defined())
def test_depth_and_exit_status_are_as_drawn(cls):
    depth = cls.__mro__.index(MdtoolError)
    assert _drawn()[cls.__name__] == (depth, cls.exit_code)


def test_a_corrupt_stream_says_where_it_breaks_off():
    error = CorruptStreamError("trades.dbn", 1_234, 5_678, "cut inside a record")
    assert str(error) == "trades.dbn: cut inside a record at byte 1234, after 5,678 whole records"
    assert (error.source, error.offset, error.record) == ("trades.dbn", 1_234, 5_678)


def test_bytes_of_what_was_compressed_are_told_as_such():
    error = CorruptStreamError(
        "trades.dbn.zst", 1_234, 2, "cut inside a record", is_compressed=True
    )
    assert str(error) == (
        "trades.dbn.zst: cut inside a record at byte 1234 of the decompressed stream, "
        "after 2 whole records"
    )
