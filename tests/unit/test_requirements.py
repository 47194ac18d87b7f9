"""What an installation without extras brings with it."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(requirements):
    """The names of all packages that some requirements lead to, as they are installed here."""
    found, waiting = set(), [(text, "") for text in requirements]
    while waiting:
        text, extra = waiting.pop()
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = normal(requirement.name)
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in found:
                found.add((name, wanted))
                waiting += [(each, wanted) for each in metadata.requires(name) or ()]
    return {name for name, _ in found}


def test_the_core_installs_neither_pandas_nor_a_second_web_framework():
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    core = closure(project["dependencies"])
    assert {"aiohttp", "yarl", "numba", "llvmlite"} <= core
    assert not core & {"pandas", "databento", "fastapi", "starlette", "flask", "django"}
