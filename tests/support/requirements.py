"""Programs that some tests require besides Python: found, or the reason to skip the test.

Where `TESTS_REQUIRE_ALL` is 1, as it is in CI, a test fails instead of being skipped.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
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
    "java": ("java",),
    "maven": ("mvn",),
}
"""The programs of tests, and the names that systems have for them."""

_NODE_FILES: Final = Path(__file__).parents[1] / "node"
_INSTALL_S: Final = 100


def needs(name: str) -> str:
    """Return the path of one of `PROGRAMS`, or skip the test without it."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", *_folders_of_postgres()])
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
    folder, problem = _installed(needs("npm"))
    if problem:
        missing(problem)
    return folder


@functools.cache
def _installed(npm: str) -> tuple[Path, str]:
    """Return the folder of the packages, and the error if they cannot be installed."""
    files = [_NODE_FILES / name for name in ("package.json", "package-lock.json")]
    version = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mdtool"
    folder = base / f"node-{version}"
    if folder.is_dir():
        return folder / "node_modules", ""
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=base, prefix="node-") as scratch:
        making = Path(scratch) / "packages"
        making.mkdir()
        for file in files:
            shutil.copy(file, making)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        try:
            subprocess.run(
                command, cwd=making, check=True, timeout=_INSTALL_S, capture_output=True, text=True
            )
        except subprocess.CalledProcessError as error:
            return folder, f"npm ci failed: {error.stderr.strip()[-500:]}"
        except subprocess.TimeoutExpired:
            return folder, f"npm ci took longer than {_INSTALL_S} s"
        with contextlib.suppress(OSError):  # another process of the run was there first
            making.rename(folder)
    return folder / "node_modules", ""
