"""Kernels are compiled once, with a word about it, and kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mdtool

NOTICE = "mdtool: compiling kernels, once after an install...\n"
MODULE = """
import numpy as np
from mdtool.core.jit import inlined, kernel

@inlined
def doubled(value):
    return 2 * value

@kernel
def total(values):
    sum_of_all = 0
    for value in values:
        sum_of_all += doubled(value)
    return sum_of_all

@kernel
def quotient(a, b):
    return a / b

print(total(np.arange(5)), quotient(1.0, 0.0))
"""

INTERRUPTED = """
import signal
import numpy as np
from numba.core.codegen import CPUCodeLibrary
from mdtool.core.jit import kernel

def interrupted(*_):
    signal.raise_signal(signal.SIGINT)

CPUCodeLibrary._object_compiled_hook = interrupted

@kernel
def total(values):
    return values.sum()

try:
    print(total(np.arange(5)))
except KeyboardInterrupt:
    print("interrupted", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def test_ctrl_c_is_not_lost_where_llvm_calls_back(tmp_path):
    (tmp_path / "kernels.py").write_text(INTERRUPTED)
    done = subprocess.run(
        [sys.executable, "kernels.py"],
        cwd=tmp_path,
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("interrupted True\n", "")


def test_a_kernel_is_compiled_once_and_cached(tmp_path):
    (tmp_path / "kernels.py").write_text(MODULE)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("NUMBA_CACHE_DIR", None)

    def run():
        done = subprocess.run(
            [sys.executable, "kernels.py"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout, done.stderr

    assert run() == ("20 inf\n", NOTICE)
    assert run() == ("20 inf\n", "")
    assert list((tmp_path / "cache" / "mdtool").rglob("*.nbi"))


def test_the_digest_includes_all_modules_with_kernels():
    root = Path(mdtool.__file__).parent
    users = {path for path in root.rglob("*.py") if "core.jit import" in path.read_text()}
    assert users == set(root.rglob("*kernel.py"))


def test_caches_are_keyed_by_a_digest_of_all_kernels_and_bounded(tmp_path):
    package = tmp_path / "mdtool"
    shutil.copytree(Path(mdtool.__file__).parent / "core", package / "core")
    (package / "__init__.py").write_text('__version__ = "9.9.9"')
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("NUMBA_CACHE_DIR", None)

    def cache_folder(variables: dict[str, str]) -> Path:
        done = subprocess.run(
            [sys.executable, "-c", "import mdtool.core.jit, numba; print(numba.config.CACHE_DIR)"],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            check=True,
        )
        return Path(done.stdout.strip())

    first = cache_folder(environment)
    assert first.is_dir()
    assert first.parent == tmp_path / "cache" / "mdtool"
    inherited = environment | {"NUMBA_CACHE_DIR": str(first)}
    assert cache_folder(inherited) == first
    others = [first.with_name(f"kernels-{age}") for age in range(9)]
    for age, other in enumerate(others):
        other.mkdir()
        os.utime(other, ns=(10**18 - age, 10**18 - age))
    (package / "core" / "another_kernel.py").write_text("# changed")

    second = cache_folder(inherited)

    assert set(first.parent.iterdir()) == {second, first, *others[:6]}
