"""Kernels are compiled once, with a word about it, and kept."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import mdtool
from mdtool.core import machine_code
from tests.support.processes import ChildProcess

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

import sys
print(total(np.arange(5)), quotient(1.0, 0.0), "numba" in sys.modules)
"""

CONFORMANCE = """
from typing import NamedTuple
import numpy as np
from mdtool.core import machine_code
from mdtool.core.jit import inlined, kernel

if WAY == "numba":
    machine_code.is_supported = lambda: False

class Table(NamedTuple):
    rows: object
    counts: object

@kernel
def scalars(a, b, c, d):
    return a + 1, b + np.uint64(1), c * 2, not d

@kernel
def fill(table, row, value):
    for at in range(table.rows.shape[1]):
        table.rows[row, at] = value
    table.counts[0] += 1

@kernel
def total(values):
    found = 0
    for at in range(len(values)):
        found += np.int64(values[at])
    return found

@kernel
def volume(records):
    found = 0
    for at in range(len(records)):
        found += records[at].size
    return found

print(*scalars(2**63 - 2, np.uint64(2**64 - 2), 0.25, False))
print(*scalars(np.int64(-1), np.uint64(0), np.float64(-1.0), np.True_))
table = Table(np.zeros((2, 3), np.int64), np.zeros(1, np.int64))
print(fill(table, 1, 7), table.rows.tolist(), table.counts.tolist())
print(fill(Table(*table), 0, -1), table.rows.tolist(), table.counts.tolist())
values = np.arange(10)
fixed = values.copy()
fixed.flags.writeable = False
narrow = values.astype(np.uint32)
for each in (values, fixed, narrow, fixed[2:4], values[:0], narrow, values.view("<q"), values[::3]):
    print(total(each), end=" ")
class Kind(np.ndarray): pass
print(total(values.view(Kind)), total(values.view(np.dtype("i8", metadata={"a": 1}))))
layout = [("flag", "u1"), ("size", "i8")]
print(volume(np.ones(3, layout)), volume(np.ones(4, np.dtype(layout))))
for wrong in ((1, 2), (None,), ()):
    try:
        total(*wrong)
    except Exception as error:
        print("rejected")
"""
EXPECTED = [
    "9223372036854775807 18446744073709551615 0.5 True",
    "0 1 -2.0 False",
    "None [[0, 0, 0], [7, 7, 7]] [1]",
    "None [[-1, -1, -1], [7, 7, 7]] [2]",
    "45 45 45 5 0 45 45 18 45 45",
    "3 4",
    *["rejected"] * 3,
]

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
    assert done.stdout == "interrupted True\n", done.stderr


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

    assert run() == ("20 inf True\n", NOTICE)
    assert run() == ("20 inf False\n", "")
    first, second = (tmp_path / "cache" / "mdtool").rglob("*.code")

    damaged = bytearray(first.read_bytes())
    damaged[-1] ^= 1
    first.write_bytes(damaged)
    second.write_bytes(second.read_bytes()[:40])
    assert run() == ("20 inf True\n", NOTICE)
    assert run() == ("20 inf False\n", "")


def run_kernels(folder, source, **variables):
    (folder / "some_kernels.py").write_text(source)
    return ChildProcess(
        [sys.executable, "some_kernels.py"],
        cwd=folder,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_without_a_folder_that_can_be_written_kernels_are_compiled_each_time(tmp_path):
    for _ in range(2):
        process = run_kernels(tmp_path, MODULE, NUMBA_CACHE_DIR=os.devnull)
        out, errors = process.communicate()
        assert out == "20 inf True\n"
        assert errors.startswith("mdtool: compiling kernels, which are not cached (/dev/null/")
        assert errors.count("\n") == 1


def test_processes_that_start_together_share_a_new_folder(tmp_path):
    cache = tmp_path / "cache"
    processes = [run_kernels(tmp_path, MODULE, NUMBA_CACHE_DIR=str(cache)) for _ in range(3)]
    assert {process.communicate()[0][:6] for process in processes} == {"20 inf"}
    assert [path.suffix for path in cache.rglob("*") if path.is_file()] == [".code", ".code"]
    process = run_kernels(tmp_path, MODULE, NUMBA_CACHE_DIR=str(cache))
    assert process.communicate() == ("20 inf False\n", "")


@pytest.mark.parametrize("way", ["machine code", "numba", "interpreter"])
def test_a_kernel_returns_the_same_however_it_runs(tmp_path, way):
    is_disabled = str(int(way == "interpreter"))
    source = f"WAY = {way!r}\n{CONFORMANCE}"
    process = run_kernels(
        tmp_path, source, NUMBA_CACHE_DIR=str(tmp_path), NUMBA_DISABLE_JIT=is_disabled
    )
    out, errors = process.communicate()
    assert (out.splitlines(), errors) == (EXPECTED, "" if way == "interpreter" else NOTICE)
    # What machine code does not take is left to numba.
    assert len(list(tmp_path.rglob("*.code"))) == (6 if way == "machine code" else 0)


LIGHT = """
import sys
from mdtool.cli.app import main
try:
    main()
except SystemExit as end:
    heavy = {"numba", "llvmlite", "asyncio", "pydantic", "importlib.metadata"} & set(sys.modules)
    print(end.code, *heavy, file=sys.stderr)
"""
SAMPLES = Path(mdtool.__file__).parents[1] / "sample_data"


@pytest.mark.parametrize(
    "command",
    [
        f"book {SAMPLES / 'mbo.dbn.zst'} --json",
        f"book verify {SAMPLES / 'mbo.dbn.zst'} --json",
        f"aggregate {SAMPLES / 'trades.dbn.zst'} --interval 1m -C",
        f"aggregate {SAMPLES / 'trades.dbn.zst'} --by volume=1000 -C",
        f"vwap {SAMPLES / 'trades.dbn.zst'} --window 100 -C",
        "simulate --limit 1000 -C",
    ],
)
def test_commands_run_compiled_kernels_without_numba_or_pydantic(command):
    def run():
        done = subprocess.run(
            [sys.executable, "-c", LIGHT, *command.split()],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stderr

    run()  # compiles what is not cached
    assert run() == "0\n"


def first_use(folder, *command):
    """A command that has to compile what it needs."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder)}
    environment.pop("NUMBA_CACHE_DIR", None)
    return ChildProcess(
        [sys.executable, *command, "aggregate", str(SAMPLES / "trades.dbn.zst"), "-C"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_another_process_compiles_kernels_so_that_numba_takes_no_memory_of_this_one(tmp_path):
    out, errors = first_use(tmp_path, "-c", LIGHT).communicate()
    assert out.startswith("ts_event,")
    assert errors == NOTICE + "0\n"
    assert len(list(tmp_path.rglob("*.code"))) > 0


def test_ctrl_c_ends_the_process_that_compiles_too(tmp_path):
    process = first_use(tmp_path, "-m", "mdtool")
    assert process.stderr.readline() == NOTICE
    process.send_signal(signal.SIGINT)
    # The output ends when all processes have ended that could write it.
    assert process.communicate()[1] == ""
    assert process.returncode == 130
    assert not list(tmp_path.rglob("*.code"))


def test_machine_code_of_another_cpu_is_not_used(tmp_path, monkeypatch):
    here = machine_code.environment_digest()
    assert machine_code.environment_digest() == here
    cpus = tmp_path / "cpuinfo"
    text = "model name\t: Some CPU\ncpu MHz\t\t: {}\nflags\t\t: fpu {}\n\n"
    monkeypatch.setattr(machine_code, "CPU_INFO", cpus)

    def digest(*values):
        cpus.write_text(text.format(*values))
        return machine_code.environment_digest()

    assert len({here, digest(1000, "avx2"), digest(2000, "avx2"), digest(1000, "avx512f")}) == 3
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    generic = digest(1000, "avx2")
    assert generic == digest(1000, "avx512f") != here
    monkeypatch.setenv("NUMBA_CPU_NAME", "x86-64-v3")
    assert digest(1000, "avx2") != generic


def test_an_image_on_disk_is_read_whole_or_not_at_all():
    image = machine_code.Image(bytes(range(256)), 128, 7, {"memcpy": [200]}, [[208, 3]])
    data = image.to_bytes()
    assert machine_code.Image.from_bytes(data) == image
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(machine_code.DamagedError):
            machine_code.Image.from_bytes(changed)
        with pytest.raises(machine_code.DamagedError):
            machine_code.Image.from_bytes(data[:at])


def test_the_digest_includes_all_modules_with_kernels():
    root = Path(mdtool.__file__).parent
    users = {path for path in root.rglob("*.py") if "core.jit import" in path.read_text()}
    assert users == set(root.rglob("*kernel.py"))


def test_caches_are_keyed_by_a_digest_of_all_kernels_and_bounded(tmp_path):
    package = tmp_path / "mdtool"
    shutil.copytree(Path(mdtool.__file__).parent / "core", package / "core")
    (package / "__init__.py").touch()
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("NUMBA_CACHE_DIR", None)

    def cache_folder(variables: dict[str, str]) -> Path:
        done = subprocess.run(
            [sys.executable, "-c", "import mdtool.core.jit as j; print(j.cache_folder())"],
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
