"""The documentation: its examples run, its links lead somewhere, and the README stays short."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from mdtool.core.config import CONFIG_FILE, load
from mdtool.core.logs import LogConfig
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.ingest.config import IngestConfig

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
FENCED = re.compile(r"(<!-- run -->\n)?^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
"""A code block: whether a comment marks it to be run, its language, and its text."""
LINK = re.compile(r"\]\(([^)\s]+)\)")
MAX_README_BYTES = 10_000
SETTINGS = {"gateway": GatewayConfig, "log": LogConfig, "serve-tcp": IngestConfig}
"""The sections of the settings that operations.md shows."""

pytestmark = pytest.mark.usefixtures("no_settings", "samples")


@pytest.fixture
def samples(tmp_path):
    """The folder in which examples run: it has sample_data."""
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")


def blocks(page, language):
    """The code blocks of a page in one language, each with whether it is marked to be run."""
    found = FENCED.findall(page.read_text("utf-8"))
    return [(text, bool(mark)) for mark, named, text in found if named == language]


def shell_examples():
    for page in PAGES:
        for number, (text, is_marked) in enumerate(blocks(page, "sh")):
            if is_marked:
                yield pytest.param(text, id=f"{page.stem}-{number}")


@pytest.mark.parametrize("example", [*shell_examples()])
def test_marked_shell_examples_run(example, tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", example]
    done = subprocess.run(
        command, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout or any(file.is_file() for file in tmp_path.iterdir())


def test_python_examples_print_what_they_show():
    page = ROOT / "docs" / "python.md"
    text = "\n".join(example for example, _ in blocks(page, "python"))
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert len(test.examples) >= 10
    said = []
    with np.printoptions(legacy=False):
        doctest.DocTestRunner().run(test, out=said.append)
    assert not said, "".join(said)


def test_the_python_example_of_the_readme_runs():
    [(example, _)] = blocks(ROOT / "README.md", "python")
    names = {}
    exec(example, names)
    assert names["bars"].num_rows > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text("utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page if not name else (page.parent / name).resolve()
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


def anchors(page):
    """The anchors of a page's headings, as GitHub and GitLab make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_metric_is_documented():
    source = (ROOT / "mdtool" / "services" / "gateway" / "metrics.py").read_text("utf-8")
    names = set(re.findall(r'"(mdtool_\w+)"', source))
    assert names
    documented = re.findall(r"`(mdtool_\w+)", (ROOT / "docs" / "gateway.md").read_text("utf-8"))
    assert names <= set(documented)


def test_the_example_of_settings_is_valid(tmp_path):
    [(text, _)] = blocks(ROOT / "docs" / "operations.md", "toml")
    (tmp_path / CONFIG_FILE).write_text(text)
    for section in tomllib.loads(text):
        load(SETTINGS[section], section, {})


def test_the_readme_is_short():
    assert (ROOT / "README.md").stat().st_size <= MAX_README_BYTES
