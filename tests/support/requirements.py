"""Programs that some tests require besides Python: found, or the reason to skip the test.

Where `TESTS_REQUIRE_ALL` is 1, as it is in CI, a test fails instead of being skipped.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import pytest

REQUIRE_ALL: Final = "TESTS_REQUIRE_ALL"
PROGRAMS: Final = {
    "node": ("node",),
    "npm": ("npm",),
    "chromium": ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    "redis": ("redis-server",),
    "postgres": ("postgres",),
    "initdb": ("initdb",),
    "pgbouncer": ("pgbouncer",),
    "setpriv": ("setpriv",),
    "java": ("java",),
    "maven": ("mvn",),
    "cargo": ("cargo",),
    "prometheus": ("prometheus",),
    "promtool": ("promtool",),
    "nginx": ("nginx",),
    "haproxy": ("haproxy",),
    "systemd-analyze": ("systemd-analyze",),
    "hadolint": ("hadolint",),
    "kustomize": ("kustomize",),
    "go": ("go",),
}
"""The programs of tests, and the names that systems have for them."""

_NODE_FILES: Final = Path(__file__).parents[1] / "node"
_INSTALL_S: Final = 250
_NPM_CI: Final = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")


def needs(name: str) -> str:
    """Return the path of one of `PROGRAMS`, or skip the test without it."""
    languages = [str(Path.home() / each) for each in (".cargo/bin", "go/bin")]
    folders = [*languages, "/usr/sbin", *_folders_of_postgres()]
    path = os.pathsep.join([os.environ.get("PATH", ""), *folders])
    candidates = (shutil.which(program, path=path) for program in PROGRAMS[name])
    found = next(filter(None, candidates), None)
    if found is None:
        missing(f"there is no {' or '.join(PROGRAMS[name])} on this machine")
    return found


def _folders_of_postgres() -> list[str]:
    """Return Debian's folders of PostgreSQL's programs, which are on no PATH, newest first."""
    folders = Path("/usr/lib/postgresql").glob("*/bin")
    return sorted(map(str, folders), key=lambda name: name.split("/")[4].zfill(4), reverse=True)


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it where everything is required."""
    if os.environ.get(REQUIRE_ALL) == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def node_modules() -> Path:
    """Return a folder of the npm packages that tests/node/package-lock.json names.

    They are installed once into the user's cache. A script finds them by `require` when
    `NODE_PATH` names the folder.
    """
    needs("node")
    files = [_NODE_FILES / name for name in ("package.json", "package-lock.json")]
    return made_once("node", (needs("npm"), *_NPM_CI), files, "node_modules")


def made_once(name: str, command: Sequence[str], files: Sequence[Path], product: str) -> Path:
    """Return what a command makes of some files, or skip the test where it fails.

    It is made once and stored in the user's cache, until the files change.

    Parameters
    ----------
    name : str
        Of its folder in the cache.
    command : sequence of str
        It runs in a folder in which the files are beside each other.
    files : sequence of Path
    product : str
        The file or folder that it makes, relative to that folder.
    """
    folder, problem = _made(name, tuple(command), tuple(files), product)
    if problem:
        missing(problem)
    return folder / Path(product).name


@functools.cache
def _made(
    name: str, command: tuple[str, ...], files: tuple[Path, ...], product: str
) -> tuple[Path, str]:
    """Return the folder of the product, and the error if it cannot be made."""
    version = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mdtool"
    folder = base / f"{name}-{version}"
    if folder.is_dir():
        return folder, ""
    base.mkdir(parents=True, exist_ok=True)
    with (
        (base / f"{name}.lock").open("w") as lock,
        tempfile.TemporaryDirectory(dir=base, prefix=f"{name}-") as scratch,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():  # another process of the run was here first
            return folder, ""
        making = Path(scratch) / "making"
        making.mkdir()
        for file in files:
            shutil.copy(file, making)
        does = f"{Path(command[0]).name} {command[1]}"
        try:
            subprocess.run(
                command, cwd=making, check=True, timeout=_INSTALL_S, capture_output=True, text=True
            )
        except subprocess.CalledProcessError as error:
            return folder, f"{does} failed: {(error.stderr or error.stdout).strip()[-500:]}"
        except subprocess.TimeoutExpired:
            return folder, f"{does} took longer than {_INSTALL_S} s"
        made = Path(scratch) / "made"
        made.mkdir()
        shutil.move(making / product, made)
        made.rename(folder)
    return folder, ""
