"""Print the notes of a release from CHANGELOG.md, once its tag, version and changelog agree.

Usage: release.py TAG, such as v0.1.0. Without agreement the status is 1, and one line says why.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
_HEADING: Final = re.compile(r"^## \[(.+?)\](?: - (\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)


def sections() -> dict[str, tuple[str, str]]:
    """Return the date and the text of each section of the changelog, by version, as they stand."""
    _, *parts = _HEADING.split((ROOT / "CHANGELOG.md").read_text("utf-8"))
    return {
        version: (date or "", text.strip())
        for version, date, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }


def version() -> str:
    """Return the version in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return str(project["version"])


def notes(tag: str) -> str:
    """Return the notes of the release of a tag; exit where it is not what is released."""
    if tag != f"v{version()}":
        sys.exit(f"{tag}: pyproject.toml has version {version()}; tag v{version()}, or change it")
    date, text = sections().get(version(), ("", ""))
    if not date or not text:
        sys.exit(f"{tag}: CHANGELOG.md has no section [{version()}] with a date; add it")
    if sections()["Unreleased"][1]:
        sys.exit(f"{tag}: CHANGELOG.md has changes under Unreleased; move them to [{version()}]")
    return text


if __name__ == "__main__":
    print(notes(*sys.argv[1:]))
