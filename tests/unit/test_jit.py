"""Kernels are compiled once, with a word about it, and kept."""

from __future__ import annotations

import os
import subprocess
import sys

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


def test_a_kernel_is_compiled_once_and_kept(tmp_path):
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
