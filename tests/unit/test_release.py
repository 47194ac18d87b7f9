"""A release: version, changelog and tag agree, and what they declare is what is tested."""

from __future__ import annotations

import datetime as dt
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mdtool
from tests.support.commands import output_of

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
VERSION = PROJECT["version"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")
RELEASES = re.findall(r"^## \[(\d+)\.(\d+)\.(\d+)\] - (\S+)$", CHANGELOG, re.MULTILINE)


def notes(root, tag):
    """What the release of a tag says of a tree."""
    command = [sys.executable, root / ".ci" / "release.py", tag]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def tree(tmp_path):
    """A tree in which the version in pyproject.toml is about to be tagged."""
    (tmp_path / ".ci").mkdir()
    for name in (".ci/release.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    text = f"# Changelog\n\n## [Unreleased]\n\n## [{VERSION}] - 2026-11-20\n\n- Bars.\n"
    (tmp_path / "CHANGELOG.md").write_text(text)
    return tmp_path


def test_the_version_is_one_everywhere():
    assert mdtool.__version__ == VERSION
    assert output_of("--version").decode() == f"mdtool {VERSION}\n"
    assert RELEASES
    assert ".".join(RELEASES[0][:3]) == VERSION


def test_releases_of_the_changelog_are_in_order():
    versions = [tuple(map(int, numbers)) for *numbers, _ in RELEASES]
    dates = [dt.date.fromisoformat(date) for *_, date in RELEASES]
    assert versions == sorted(set(versions), reverse=True)
    assert dates == sorted(dates, reverse=True)
    assert CHANGELOG.index("## [Unreleased]") < CHANGELOG.index(f"## [{VERSION}]")


def test_tags_of_this_commit_are_its_version():
    command = ["git", "-C", ROOT, "tag", "--points-at", "HEAD", "v*"]
    tags = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    assert set(tags) <= {f"v{VERSION}"}


def test_the_notes_of_a_release_are_its_section(tree):
    done = notes(tree, f"v{VERSION}")
    assert (done.stdout, done.stderr) == ("- Bars.\n", "")


@pytest.mark.parametrize(
    ("tag", "old", "new", "said"),
    [
        ("v99.0.0", "", "", f"v99.0.0: pyproject.toml has version {VERSION}; tag v{VERSION}, or"),
        (f"v{VERSION}", " - 2026-11-20", "", f"CHANGELOG.md has no section [{VERSION}] with a"),
        (f"v{VERSION}", "[Unreleased]\n", "[Unreleased]\n\n- Books.\n", "under Unreleased; move"),
    ],
)
def test_a_tag_that_disagrees_is_not_released(tree, tag, old, new, said):
    page = tree / "CHANGELOG.md"
    page.write_text(page.read_text().replace(old, new, 1) if old else page.read_text())
    done = notes(tree, tag)
    assert done.returncode == 1
    assert done.stdout == ""
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
