"""Distributions as `python -m build` makes them: what is in them, and that a wheel is enough."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DECLARED = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if "Python :: 3." in name]
NOT_DISTRIBUTED = (".github/", ".gitignore")
BARS = ["aggregate", ROOT / "sample_data" / "trades.dbn.zst", "--interval", "1m", "-C", "-p", "-s"]

pytestmark = pytest.mark.slow


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tracked():
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone of the repository")
    return set(run("git", "-C", ROOT, "ls-files", "--cached").splitlines())


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """A source distribution and the wheel that is made of it."""
    scratch = tmp_path_factory.mktemp("build")
    # setuptools writes beside what it builds, and takes up what an earlier build left there.
    skipped = shutil.ignore_patterns(
        ".git", "build", "dist", "*.egg-info", "__pycache__", ".*_cache"
    )
    shutil.copytree(ROOT, scratch / "tree", ignore=skipped)
    run(sys.executable, "-m", "build", "--outdir", scratch / "dist", scratch / "tree")
    [source] = scratch.glob("dist/*.tar.gz")
    [wheel] = scratch.glob("dist/*.whl")
    return source, wheel


def test_distributions_have_the_files_of_the_repository(distributions, tracked):
    source, wheel = distributions
    with tarfile.open(source) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in tracked - packed if not name.startswith(NOT_DISTRIBUTED)} == set()
    with zipfile.ZipFile(wheel) as archive:
        installed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert installed == {name for name in tracked if name.startswith("mdtool/")}


@pytest.mark.parametrize("version", DECLARED)
def test_a_wheel_alone_makes_bars_and_books(version, distributions, tmp_path):
    run(interpreter(version), "-m", "venv", tmp_path / "venv")
    programs = tmp_path / "venv" / "bin"
    run(programs / "pip", "install", "--quiet", distributions[1])
    # Nothing of the tests' own environment is seen: its settings, its path, its kernels.
    alone = {"PATH": f"{programs}:{os.defpath}", "HOME": str(tmp_path)}
    bars = run("mdtool", *BARS, cwd=tmp_path, env=alone)
    assert bars == run(sys.executable, "-m", "mdtool", *BARS)
    assert len(bars.splitlines()) > 10
    pipeline = f"mdtool replay-dbn {ROOT}/sample_data/mbo.dbn.zst | mdtool book - --json"
    books = run("bash", "-euo", "pipefail", "-c", pipeline, cwd=tmp_path, env=alone)
    file = ROOT / "sample_data" / "mbo.dbn.zst"
    assert books == run(sys.executable, "-m", "mdtool", "book", file, "--json")


def interpreter(version):
    """Return the program of a version of Python, on the path or of pyenv, or skip the test."""
    if version == "{}.{}".format(*sys.version_info):
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    name = f"python{version}"
    for program in (shutil.which(name), *pyenv.glob(f"versions/{version}.*/bin/{name}")):
        if (
            program
            and not subprocess.run([program, "-V"], capture_output=True, check=False).returncode
        ):
            return program
    pytest.skip(f"there is no {name} on this machine")
