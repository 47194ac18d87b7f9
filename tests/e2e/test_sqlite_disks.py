"""SQLite stores on disks that are full or read-only, and in folders of other users."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from mdtool.adapters.stores import open_care, open_history, open_store
from mdtool.adapters.stores.errors import StoreUnavailableError
from mdtool.adapters.stores.port import Step, Store
from mdtool.core.errors import OutputError, StartupError
from mdtool.services.supervisor.config import ServeConfig
from mdtool.services.supervisor.storage import chosen_store
from tests.support.requirements import missing
from tests.support.stores import NOON_NS, run, step
from tests.support.users import as_nobody, folder_for_all

MIB = 1 << 20


def trades(first: int, count: int) -> Step:
    """A step of a stream whose frames are all trades, of times that take room."""
    rows = [(0, n + 1, 1, NOON_NS + n) for n in range(first, first + count)]
    return step(["AAPL"], run("stream", first, rows), counts={"ticks": first + count})


def message(raised) -> str:
    """The text of what was raised, which must be one line that names the store."""
    text = str(raised.value)
    assert text.startswith("sqlite /")
    assert "\n" not in text
    return text


def write_on(store: Store, count: int) -> int:
    """Write so many trades a step until that is refused; return how many the store took."""
    kept = store.position("stream") or 0
    with contextlib.suppress(StoreUnavailableError):
        while True:
            store.write(trades(kept, count))
            kept += count
    return kept


def mount(*arguments: str) -> None:
    try:
        subprocess.run(["mount", *arguments], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        missing("there is no mount on this machine")
    except subprocess.CalledProcessError as error:
        missing(f"this user cannot mount: {error.stderr.strip()}")


class Disk:
    """A file system in memory, of a few MiB."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, *, leave_bytes: int = 0) -> None:
        """Take all that is free."""
        status = os.statvfs(self.folder)
        free = status.f_bavail * status.f_frsize - leave_bytes
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free)

    def free(self) -> None:
        """Give it back."""
        self._ballast.unlink()

    def remount(self, *options: str) -> None:
        """Change what it allows."""
        mount("-o", ",".join(["remount", *options]), str(self.folder))


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder))
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def url(disk) -> str:
    return f"sqlite:///{disk.folder}/trades.db"


def check(url: str, count: int) -> None:
    """See that a store has the first so many trades and what goes with them."""
    with open_store(url) as store:
        assert [n for page in store.trades("AAPL") for n in page.sequence.tolist()] == list(
            range(count)
        )
        assert store.load(1, 0).counts == {"ticks": count}
        assert store.position("stream") == count
        assert store.recount() == []


def test_a_disk_that_fills_up_has_whole_steps_and_resumes_with_free_space(disk, url):
    with open_store(url) as store:
        kept = write_on(store, 5_000)
        assert kept
        with pytest.raises(StoreUnavailableError) as raised:
            store.write(trades(kept, 5_000))
        assert "full" in message(raised)
        assert store.symbols()[0].trade_count == kept
        disk.remount("size=64m")
        store.write(trades(kept, 5_000))
    check(url, kept + 5_000)


@pytest.mark.parametrize("leave_bytes", [0, 4_096, 16_384, 65_536])
def test_a_store_is_created_once_a_full_disk_has_space(disk, url, leave_bytes):
    disk.fill(leave_bytes=leave_bytes)
    with pytest.raises(StoreUnavailableError) as raised, open_store(url):
        pass
    message(raised)
    disk.free()
    with open_store(url) as store:
        store.write(trades(0, 1_000))
    check(url, 1_000)


@pytest.mark.parametrize("leave_bytes", [0, 4_096, 16_384, 65_536, 262_144])
def test_a_disk_with_little_space_has_all_acknowledged_steps(disk, url, leave_bytes):
    with open_store(url) as store:
        store.write(trades(0, 1_000))
        disk.fill(leave_bytes=leave_bytes)
        kept = write_on(store, 100)
        disk.free()
        assert store.position("stream") == kept
        store.write(trades(kept, 1_000))
    check(url, kept + 1_000)


def test_a_store_on_a_disk_that_filled_up_is_opened_again(disk, url):
    with open_store(url) as store:
        store.write(trades(0, 1_000))
    disk.fill()
    with pytest.raises(StoreUnavailableError) as raised, open_store(url):
        pass
    message(raised)
    disk.free()
    check(url, 1_000)


def test_a_full_disk_has_no_copy_and_keeps_the_store(disk, url, tmp_path):
    with open_store(url) as store:
        store.write(trades(0, 10_000))
    elsewhere = f"sqlite:///{tmp_path}/other.db"
    with open_store(elsewhere) as store:
        store.write(trades(0, 50_000))
    disk.fill(leave_bytes=65_536)
    with pytest.raises(OutputError, match=r"copy\.db: is full, or its disk is"):
        open_care(elsewhere).back_up(disk.folder / "copy.db", lambda *_: None)
    (disk.folder / "copy.db").unlink()
    with pytest.raises(StoreUnavailableError) as raised:
        open_care(url).restore(tmp_path / "other.db", lambda *_: None, replaces=True)
    assert "full" in message(raised)
    check(url, 10_000)


def test_a_read_only_disk_stores_nothing_until_it_can_be_written(disk, url):
    with open_store(url) as store:
        store.write(trades(0, 10))
    disk.remount("ro")
    with pytest.raises(StoreUnavailableError) as raised, open_store(url):
        pass
    message(raised)
    disk.remount("rw")
    check(url, 10)


def test_a_disk_that_is_removed_during_a_write_is_noticed(disk, url):
    with open_store(url) as store:
        store.write(trades(0, 10))
        mount("--bind", str(disk.folder.parent), str(disk.folder))  # hides it
        try:
            for _ in range(2):
                with pytest.raises(StoreUnavailableError) as raised:
                    store.write(trades(10, 10))
                assert "there is no such file" in message(raised)
        finally:
            subprocess.run(["umount", str(disk.folder)], check=True)
        store.write(trades(10, 10))
    check(url, 20)


@pytest.fixture
def open_folder():
    with folder_for_all() as folder:
        yield folder


def test_a_file_that_may_not_be_written_is_read_only(open_folder):
    url = f"sqlite:///{open_folder}/trades.db"
    with open_store(url) as store:
        store.write(trades(0, 10))
    open_folder.chmod(0o777)
    with as_nobody(), pytest.raises(StoreUnavailableError) as raised, open_store(url):
        pass
    assert "is read-only" in message(raised)
    check(url, 10)


def test_a_read_only_folder_has_no_store_and_no_claim(open_folder):
    url = f"sqlite:///{open_folder}/trades.db"
    with as_nobody(), pytest.raises(StoreUnavailableError) as raised, open_store(url):
        pass
    assert f"no permission to create files in {open_folder}" in message(raised)
    with as_nobody(), pytest.raises(StartupError, match="Permission denied; name another folder"):
        chosen_store(ServeConfig(data_dir=str(open_folder)))
    with open_store(url) as store:
        store.write(trades(0, 10))
        with as_nobody(), pytest.raises(StoreUnavailableError) as raised:
            store.claim()
        assert "trades.db.lock: Permission denied" in message(raised)
        store.claim()


def test_an_unreadable_file_is_reported(open_folder):
    url = f"sqlite:///{open_folder}/trades.db"
    with open_store(url):
        (open_folder / "trades.db").chmod(0o600)
        for opener in (open_store, open_history):
            with as_nobody(), pytest.raises(StoreUnavailableError) as raised, opener(url) as opened:
                opened.symbols()
            assert "no permission to create files in" in message(raised)
