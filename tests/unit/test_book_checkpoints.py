"""Checkpoints beside a file: taken where they are right, told of where they cannot be trusted."""

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import zstandard

from mdtool.adapters import book_checkpoints
from mdtool.adapters.book_checkpoints import SUFFIX, CheckpointedSource, enter, nearest_checkpoint
from mdtool.core.dtypes import F_LAST, MBO
from mdtool.core.errors import InputError, OutputError, UsageError
from mdtool.core.instruments import Instruments
from mdtool.core.records import index_timestamps
from mdtool.engine.book.rebuild import Rebuild
from mdtool.engine.book.sampling import FinalSampler
from mdtool.engine.simulate import Exchange
from mdtool.wire.dbn import encode_records
from tests.reference import dbn_streams as streams
from tests.support.instruments import batch

N = 30_000
EVERY = 7_000


@pytest.fixture(scope="module")
def stream() -> np.ndarray:
    records = Exchange(["AAPL", "MSFT"], seed=6).generate(N)[:N]
    # Long events, so that checkpoints fall into them.
    records["flags"] = np.where(np.arange(N) % 50 == 49, F_LAST, 0)
    return records


@pytest.fixture(params=["f.dbn", "f.dbn.zst"])
def path(request, tmp_path, stream) -> str:
    file = tmp_path / request.param
    mapping = streams.mapping(9, "LEARNT")
    data = streams.header(None) + mapping + bytes(encode_records(stream))
    file.write_bytes(zstandard.compress(data) if file.suffix == ".zst" else data)
    return str(file)


def write(path: str, every: int = EVERY) -> Rebuild:
    rebuild = Rebuild()
    with CheckpointedSource(path, rebuild, every) as source:
        for part in source:
            if part.records.dtype == MBO:
                rebuild.update(part)
    return rebuild


def picture(source, rebuild: Rebuild, at_ns: int) -> list[dict]:
    sampler = FinalSampler(rebuild=rebuild)
    for part in source:
        if part.records.dtype == MBO:
            assert [*sampler.update(part[part.index_timestamps <= at_ns])] == []
    return [
        snapshot.as_dict(f"{snapshot.publisher_id} {snapshot.instrument_id}")
        for snapshot in sampler.close()
    ]


def from_the_beginning(stream: np.ndarray, at_ns: int) -> list[dict]:
    return picture([batch(stream)], Rebuild(), at_ns)


@pytest.mark.parametrize("at", [EVERY - 1, EVERY, EVERY + 25, 15_000, N - 1])
def test_from_a_checkpoint_it_is_the_same(path, stream, at):
    write(path)
    at_ns = int(index_timestamps(stream)[at])
    entered = enter(path, at_ns)
    assert (entered is None) == (nearest_checkpoint(path, at_ns, Instruments()) is None)
    if entered is None:
        assert at < EVERY
        return
    source, rebuild = entered
    with source:
        assert source.position.records > EVERY
        assert picture(source, rebuild, at_ns) == from_the_beginning(stream, at_ns)


def test_it_is_the_last_one_before_the_time(path, stream):
    write(path)
    ts_ns = index_timestamps(stream)
    for number in (1, 2, 4):
        last = int(ts_ns[number * EVERY - 1])
        checkpoint = nearest_checkpoint(path, last, Instruments())
        assert checkpoint is not None
        assert checkpoint.position.records == 1 + number * EVERY, "one is the mapping"
        assert checkpoint.rebuild.latest_ns <= last


def test_what_had_not_ended_goes_on(path, stream):
    write(path)
    checkpoint = nearest_checkpoint(path, int(index_timestamps(stream)[EVERY]), Instruments())
    assert checkpoint is not None
    assert 0 < len(checkpoint.rebuild.events.held) < 100


def test_checkpoints_are_the_same_twice(path):
    write(path)
    first = Path(path + SUFFIX).read_bytes()
    write(path)
    assert Path(path + SUFFIX).read_bytes() == first
    assert sorted(file.name for file in Path(path).parent.iterdir()) == sorted(
        [Path(path).name, Path(path).name + SUFFIX]
    )


def test_a_run_that_stops_keeps_what_it_has(path, stream):
    rebuild = Rebuild()
    with CheckpointedSource(path, rebuild, EVERY) as source:
        for part in source:
            if part.records.dtype == MBO:
                rebuild.update(part)
                if rebuild.latest_ns > int(index_timestamps(stream)[EVERY + 10]):
                    break
    checkpoint = nearest_checkpoint(path, int(index_timestamps(stream)[-1]), Instruments())
    assert checkpoint is not None
    assert checkpoint.position.records == 1 + EVERY


def test_a_run_that_comes_to_none_leaves_those_that_there_are(path):
    write(path)
    before = Path(path + SUFFIX).read_bytes()
    write(path, every=10 * N)
    assert Path(path + SUFFIX).read_bytes() == before
    assert len([*Path(path).parent.iterdir()]) == 2


def test_without_any(path, caplog):
    assert nearest_checkpoint(path, 2**62, Instruments()) is None
    assert nearest_checkpoint("-", 2**62, Instruments()) is None
    assert nearest_checkpoint("no such file", 2**62, Instruments()) is None
    write(path, every=10 * N)
    assert nearest_checkpoint(path, 2**62, Instruments()) is None
    assert caplog.messages == []


def touched(path: Path, sidecar: Path) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def grown(path: Path, sidecar: Path) -> None:
    status = path.stat()
    with path.open("ab") as file:
        file.write(b"more")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def changed_in_place(path: Path, sidecar: Path) -> None:
    """As when a file of the same length and time is put in its place."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def of_another_version(path: Path, sidecar: Path) -> None:
    magic, identity, rest = sidecar.read_bytes().split(b"\n", 2)
    changed = json.loads(identity) | {"mdtool": "0.0.1"}
    sidecar.write_bytes(b"\n".join([magic, json.dumps(changed).encode(), rest]))


def foreign(path: Path, sidecar: Path) -> None:
    sidecar.write_bytes(b"what is this?")


def flipped(path: Path, sidecar: Path) -> None:
    data = bytearray(sidecar.read_bytes())
    data[-100] ^= 1
    sidecar.write_bytes(data)


def cut(path: Path, sidecar: Path) -> None:
    sidecar.write_bytes(sidecar.read_bytes()[:-100])


def cut_in_its_head(path: Path, sidecar: Path) -> None:
    sidecar.write_bytes(sidecar.read_bytes()[:60])


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (touched, "of another file, or of this one before it changed"),
        (grown, "of another file, or of this one before it changed"),
        (changed_in_place, "of another file, or of this one before it changed"),
        (of_another_version, "of another version of mdtool"),
        (foreign, "is not a file of checkpoints"),
        (flipped, "damaged"),
        (cut, "damaged"),
        (cut_in_its_head, "damaged"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_trusted_is_ignored_with_a_warning(path, caplog, harm, said):
    write(path)
    harm(Path(path), Path(path + SUFFIX))
    with caplog.at_level(logging.WARNING):
        assert nearest_checkpoint(path, 2**62, Instruments()) is None
    [message] = caplog.messages
    assert message.startswith(f"{path}{SUFFIX}: ignored, because it ")
    assert said in message


def test_a_kernel_that_changed_is_another_version(path, caplog, monkeypatch):
    write(path)
    monkeypatch.setattr(book_checkpoints.kernel, "__file__", __file__)
    assert nearest_checkpoint(path, 2**62, Instruments()) is None
    assert "another version" in caplog.messages[0]


def test_it_wants_a_file_that_can_be_read_again(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    keeps_it_open = os.open(tmp_path / "pipe", os.O_RDWR)
    os.write(keeps_it_open, streams.header())
    with pytest.raises(UsageError, match="is not a file, beside which"):
        CheckpointedSource(str(tmp_path / "pipe"), Rebuild(), 1)
    os.close(keeps_it_open)


def test_it_wants_orders(tmp_path):
    (tmp_path / "f").write_bytes(streams.header("trades"))
    with pytest.raises(InputError, match="holds trades, from which mbo cannot be taken"):
        CheckpointedSource(str(tmp_path / "f"), Rebuild(), 1)
    assert [file.name for file in tmp_path.iterdir()] == ["f"]


def test_a_place_that_cannot_be_written(path):
    Path(path + SUFFIX).mkdir()
    with pytest.raises(OutputError, match=r"mdtool-book: Is a directory"):
        write(path)
    assert len([*Path(path).parent.iterdir()]) == 2
