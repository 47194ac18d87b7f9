"""Commands without a home, a writable disk or a cache: they work, or say why not in one line."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.confined import confined, homeless
from tests.support.services import MDTOOL, service
from tests.support.users import folder_for_all
from tests.unit.test_jit import MODULE, NOTICE

SAMPLE = Path(__file__).parents[2] / "sample_data" / "trades.dbn.zst"
RESULT = ["20", "inf"]
NUMBA = """
from mdtool.core import machine_code
machine_code.is_supported = lambda: False
"""
"""Has kernels run as numba runs them, as on other platforms."""


@pytest.fixture
def folder():
    with folder_for_all() as folder:
        yield folder


def run(*command: object, around=(), **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*around, *map(str, command)],
        env=homeless(**environment),
        capture_output=True,
        text=True,
        check=False,
    )


def not_cached(why: str) -> str:
    return (
        f"mdtool: compiling kernels, which are not cached ({why}); name a folder that can be "
        "written with XDG_CACHE_HOME\n"
    )


@pytest.fixture(params=["", NUMBA], ids=["images", "numba"])
def kernels(request, folder):
    """A module with kernels, which prints their results and whether it imported numba."""
    module = folder / "kernels.py"
    module.write_text(request.param + MODULE)
    return module


def test_kernels_are_compiled_without_a_home(kernels):
    done = run(sys.executable, kernels, around=confined())
    assert (done.returncode, done.stdout.split()[:2]) == (0, RESULT), done.stderr
    assert done.stderr == not_cached("this user has no home")


def test_kernels_are_compiled_beside_a_cache_that_cannot_be_written(kernels, folder):
    done = run(sys.executable, kernels, around=confined(), XDG_CACHE_HOME=str(folder / "cache"))
    assert (done.returncode, done.stdout.split()[:2]) == (0, RESULT), done.stderr
    assert "Read-only file system); name a folder" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_cache_that_was_filled_before_is_read_where_it_cannot_be_written(kernels, folder):
    cache = str(folder / "cache")
    filled = run(sys.executable, kernels, XDG_CACHE_HOME=cache)
    assert (filled.returncode, filled.stderr) == (0, NOTICE)
    done = run(sys.executable, kernels, around=confined(), XDG_CACHE_HOME=cache)
    assert (done.returncode, done.stdout.split()[:2]) == (0, RESULT)
    assert done.stderr == ""


def test_kernels_are_compiled_beside_a_cache_that_is_full(kernels, folder):
    disk = folder / "disk"
    disk.mkdir()
    mounted = f'mount -t tmpfs -o size=64k tmpfs {disk} && "$@" && ls -R {disk}'
    around = ("unshare", "--mount", "sh", "-c", mounted, "sh")
    confined()
    done = run(sys.executable, kernels, around=around, XDG_CACHE_HOME=str(disk))
    assert done.stdout.split()[:2] == RESULT, done.stderr
    assert "No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "probe" not in done.stdout  # what did not fit is removed


def test_a_command_works_without_a_home():
    done = run(MDTOOL, "vwap", SAMPLE, "--window", "9", "-J", "-l", "1", around=confined())
    assert done.returncode == 0, done.stderr
    assert done.stderr == not_cached("this user has no home")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("command", [("serve", "all"), ("store", SAMPLE)])
def test_a_store_needs_a_home_or_a_name(command):
    done = run(MDTOOL, *command, around=confined())
    assert done.returncode == 3
    assert done.stderr == (
        "mdtool: cannot store data: this user has no home; name a folder with --data-dir or "
        "XDG_DATA_HOME, or use --memory\n"
    )


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("--install-completion", "bash"), "--install-completion: this user has no home; set HOME"),
        (("serve", "all", "--data-dir", "/data"), "cannot store data in /data: Read-only file"),
        (("simulate", "-l", "9", "-o", "/x.dbn"), "/x.dbn: "),
        (("bench", "memory"), "this machine: No usable temporary directory found"),
    ],
)
def test_what_cannot_be_written_is_one_line(command, said):
    done = run(MDTOOL, *command, around=confined())
    assert done.returncode in {1, 3}
    assert done.stderr.startswith(f"mdtool: {said}"), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_service_starts_without_a_home():
    with service("serve-tcp", "--port", "0", under=confined(), environment=homeless()) as started:
        status, errors = started.end(signal.SIGTERM)
    assert status == 0
    assert not_cached("this user has no home") in errors
