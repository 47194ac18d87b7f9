"""Folders and zips of batch jobs, and thousands of files."""

import json
import os
import subprocess
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zstandard

from mdtool.adapters.dbn_files import OPEN_AT_MOST, Recording, dbn_files, open_merged, open_source
from mdtool.core.errors import InputError, MdtoolError
from mdtool.wire.dbn import encode_records
from tests.reference import dbn_streams as streams
from tests.support.commands import MDTOOL
from tests.support.instruments import bare

HOUR_NS = 3_600 * 10**9


def orders(hour: int, n: int = 3) -> np.ndarray:
    made = streams.mbo(n, 10 * hour)
    made["ts_recv"] += np.uint64(hour * HOUR_NS)
    return made


def stream(hour: int) -> bytes:
    return streams.header() + bytes(encode_records(orders(hour)))


def job(folder: Path) -> Path:
    """A folder as a batch job fills it."""
    folder.mkdir()
    for hour in (2, 0, 1):
        (folder / f"xnas-2025-{hour}.mbo.dbn.zst").write_bytes(zstandard.compress(stream(hour)))
    for name in ("metadata", "manifest", "symbology", "condition"):
        (folder / f"{name}.json").write_text(json.dumps({"a": 1}))
    (folder / ".mdtool-0.part").write_bytes(b"hidden")
    return folder


def zipped(folder: Path, method: int = zipfile.ZIP_STORED, prefix: str = "") -> str:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", method) as archive:
        if prefix:
            archive.mkdir(prefix)
        for file in folder.iterdir():
            archive.write(file, f"{prefix}{file.name}")
    return str(path)


def read(*paths: str) -> np.ndarray:
    with open_merged(paths) as source:
        return np.concatenate(list(bare(source)))


WHOLE = np.concatenate([orders(0), orders(1), orders(2)])


class TestJobs:
    def test_a_folder(self, tmp_path, caplog):
        assert np.array_equal(read(str(job(tmp_path / "job"))), WHOLE)
        assert np.array_equal(read(f"{tmp_path}/job/"), WHOLE)
        assert not caplog.records

    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    @pytest.mark.parametrize("prefix", ["", "XNAS-20250102-ABCDE/"])
    def test_a_zip(self, tmp_path, method, prefix):
        path = zipped(job(tmp_path / "job"), method, prefix)
        assert np.array_equal(read(path), WHOLE)
        assert np.array_equal(read(f"{path}/{prefix}xnas-2025-1.mbo.dbn.zst"), orders(1))
        with open_merged([path]) as source:
            for _ in source:
                pass
            assert source.bytes_read == source.size_bytes

    def test_files_go_by_their_bytes(self, tmp_path, caplog):
        folder = tmp_path / "job"
        folder.mkdir()
        (folder / "monday").write_bytes(stream(0))
        (folder / "notes.txt").write_text("buy low")
        assert np.array_equal(read(str(folder)), orders(0))
        assert [record.getMessage() for record in caplog.records] == [
            f"{folder}: left out 1 file, not DBN: notes.txt"
        ]

    def test_beside_other_files(self, tmp_path):
        (tmp_path / "more.dbn").write_bytes(stream(3))
        path = zipped(job(tmp_path / "job"))
        more = np.concatenate([WHOLE, orders(3)])
        assert np.array_equal(read(str(tmp_path / "more.dbn"), path), more)

    def test_a_recording_is_recognised(self, tmp_path):
        folder = job(tmp_path / "job")
        first = Recording([str(folder)]).identity()
        zipped(folder)
        assert Recording([str(folder)]).identity() == first
        assert Recording([str(tmp_path / "job.zip")]).identity()
        (folder / "xnas-2025-3.mbo.dbn").write_bytes(stream(3))
        assert Recording([str(folder)]).identity() != first


def archive(path: Path, name: str = "day.dbn", data: bytes = b"", **options) -> str:
    with zipfile.ZipFile(path, "w", **options) as file:
        file.writestr(name, data)
    return str(path)


class TestDamage:
    """What cannot be read is one line."""

    def test_without_dbn(self, tmp_path):
        folder = tmp_path / "job"
        folder.mkdir()
        with pytest.raises(InputError, match=r"job: is a folder without DBN files$"):
            dbn_files([str(folder)])
        (folder / "a.csv").write_text("x")
        with pytest.raises(InputError, match=r"is a folder without DBN files; it has a\.csv$"):
            dbn_files([str(folder)])
        with pytest.raises(InputError, match=r"is a zip without DBN files; it has a\.csv$"):
            dbn_files([zipped(folder)])

    def test_a_file_that_is_not_what_its_name_says(self, tmp_path):
        path = archive(tmp_path / "a.zip", data=b"ts_recv,ts_event")
        with pytest.raises(InputError, match=r"a\.zip/day\.dbn: is not a DBN stream"):
            open_merged([path])

    def test_no_such_member(self, tmp_path):
        path = archive(tmp_path / "a.zip", data=stream(0))
        with pytest.raises(InputError, match=r"a\.zip/night\.dbn: no such file in the zip"):
            open_source(f"{path}/night.dbn")

    def test_other_methods(self, tmp_path):
        path = archive(tmp_path / "a.zip", data=stream(0), compression=zipfile.ZIP_LZMA)
        with pytest.raises(InputError, match="is compressed with lzma in the zip; unzip it"):
            open_merged([path])

    def test_an_encrypted_one(self, tmp_path):
        path = Path(archive(tmp_path / "a.zip", data=stream(0)))
        data = bytearray(path.read_bytes())
        data[data.index(b"PK\x01\x02") + 8] |= 1
        path.write_bytes(data)
        with pytest.raises(InputError, match="is encrypted; unzip it"):
            open_merged([str(path)])

    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_whatever_is_damaged_is_an_error_of_ours(self, tmp_path, method):
        whole = Path(archive(tmp_path / "a.zip", data=stream(0), compression=method)).read_bytes()
        path = tmp_path / "b.zip"
        for at in range(4, len(whole), 3):
            for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]):
                path.write_bytes(data)
                with suppress(MdtoolError):
                    read(str(path))

    @pytest.mark.parametrize("name", ["day.dbn", "day"])
    def test_a_bomb(self, tmp_path, name):
        path = archive(tmp_path / "a.zip", name, bytes(1 << 28), compression=zipfile.ZIP_DEFLATED)
        with pytest.raises(InputError, match=r"is not a DBN stream|without DBN files"):
            open_merged([path])

    def test_a_zip_in_a_pipe(self, tmp_path):
        path = tmp_path / "pipe"
        os.mkfifo(path)
        held = os.open(path, os.O_RDWR)
        os.write(held, Path(archive(tmp_path / "a.zip", data=stream(0))).read_bytes())
        with pytest.raises(InputError, match="is a zip, which cannot be read here; unzip it"):
            open_merged([str(path)])
        os.close(held)


class TestThousandsOfFiles:
    @pytest.mark.parametrize(
        ("limit", "n_files", "is_zipped"),
        [
            ("-Sn 40", OPEN_AT_MOST - 4, False),
            ("-n 40", OPEN_AT_MOST - 4, False),
            ("-n 40", 3 * OPEN_AT_MOST, False),
            ("-n 40", 3 * OPEN_AT_MOST, True),
        ],
    )
    def test_side_by_side_with_few_descriptors(self, tmp_path, limit, n_files, is_zipped):
        folder = tmp_path / "job"
        folder.mkdir()
        records = streams.mbo(20 * n_files)
        for k in range(n_files):
            part = records[k::n_files]
            data = streams.header() + bytes(encode_records(part))
            (folder / f"{k:05}.dbn.zst").write_bytes(zstandard.compress(data))
        path = zipped(folder, zipfile.ZIP_DEFLATED) if is_zipped else str(folder)
        done = subprocess.run(
            ["sh", "-c", f'ulimit {limit}; exec "$@"', "sh", *MDTOOL, "replay-dbn", path],
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.endswith(bytes(encode_records(records)))

    def test_files_are_closed_at_their_end(self, tmp_path):
        path = tmp_path / "day.dbn"
        path.write_bytes(stream(0))
        with open_source(str(path)) as source:
            list(source)
            assert path not in [
                file.readlink() for file in Path("/proc/self/fd").iterdir() if file.exists()
            ]


def test_names_of_many_files_are_cut(tmp_path):
    paths = [str(tmp_path / f"{k}.dbn") for k in range(5)]
    for path in paths:
        Path(path).write_bytes(stream(0))
    with open_merged(paths) as source:
        assert source.name == f"{paths[0]} to {paths[-1]} (5 files)"
