"""Files as a stream that is known again."""

from __future__ import annotations

import os

import pytest

from mdtool.adapters.dbn_files import Recording
from mdtool.adapters.dbn_select import Selection
from mdtool.core.errors import InputError
from tests.support.recordings import record


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "day.dbn"
    record(path, 4_000)
    return path


def test_it_opens_again_and_again(file):
    recording = Recording((str(file),))
    counts = []
    for _ in range(2):
        with recording.open() as source:
            counts.append(sum(map(len, source)))
    assert counts[0] == counts[1] >= 4_000


def test_the_same_files_are_the_same_wherever_they_lie(file, tmp_path):
    copy = tmp_path / "copy.dbn"
    copy.write_bytes(file.read_bytes())
    identity = Recording((str(file),)).identity()
    assert Recording((str(copy),)).identity() == identity
    assert len(identity) == 32
    assert set(identity) <= set("0123456789abcdef")


@pytest.mark.parametrize("at", [0, 20_000, -1])
def test_other_content_is_another_stream(file, at):
    before = Recording((str(file),)).identity()
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
    assert Recording((str(file),)).identity() != before


def test_a_file_that_grows_is_another_stream(file):
    before = Recording((str(file),)).identity()
    file.write_bytes(file.read_bytes() + b"\0")
    assert Recording((str(file),)).identity() != before


def test_what_is_wanted_of_the_files_is_part_of_the_stream(file):
    path = str(file)
    selections = [
        None,
        Selection(),
        Selection(symbols=("AAPL",)),
        Selection(symbols=("AAPL", "MSFT")),
        Selection(start_ns=5),
        Selection(end_ns=5),
    ]
    identities = [Recording((path,), None, selection).identity() for selection in selections]
    identities += [Recording((path,), "trades").identity(), Recording((path, path)).identity()]
    assert len(set(identities)) == len(identities)


def test_the_order_of_symbols_is_not(file):
    one, other = (
        Recording((str(file),), None, Selection(symbols=tuple(names))).identity()
        for names in (["A", "B", "C"], ["C", "B", "A"])
    )
    assert one == other


def test_what_cannot_be_read_again_has_no_identity(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)
    try:
        for path, why in [
            ("-", "only once"),
            (str(pipe), "more than once"),
            (str(tmp_path / "nowhere"), "no such file"),
            (str(tmp_path), "is a folder without DBN files"),
        ]:
            with pytest.raises(InputError, match=why):
                Recording((path,)).identity()
    finally:
        os.close(writer)
