"""Prints what a pyproject.toml requires, with some of its extras: requirements.py FILE EXTRA.."""

import sys
import tomllib
from pathlib import Path


def main() -> None:
    """Print a requirement a line."""
    path, *extras = sys.argv[1:]
    project = tomllib.loads(Path(path).read_text("utf-8"))["project"]
    optional = project["optional-dependencies"]
    print(*project["dependencies"], *(line for name in extras for line in optional[name]), sep="\n")


main()
