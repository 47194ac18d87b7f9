"""The documentation: its examples run, its links lead somewhere, and the README stays short."""

from __future__ import annotations

import ast
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
from mdtool.services.gateway.protocols.openapi import _row_schema
from mdtool.services.gateway.protocols.openapi_v1 import SCHEMAS
from mdtool.services.gateway.table import TABLE
from mdtool.services.ingest.config import IngestConfig
from mdtool.wire.websocket import CloseCode

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
FENCED = re.compile(r"(<!-- run -->\n)?^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
"""A code block: whether a comment marks it to be run, its language, and its text."""
LINK = re.compile(r"\]\(([^)\s]+)\)")
MAX_README_BYTES = 10_000
SAMPLE_FILES = {"sample_data/mbo.dbn.zst", "sample_data/trades.dbn.zst"}
SETTINGS = {"gateway": GatewayConfig, "log": LogConfig, "serve-tcp": IngestConfig}
"""The sections of the settings that operations.md shows."""

pytestmark = pytest.mark.usefixtures("no_settings", "samples")


@pytest.fixture
def samples(tmp_path):
    """The folder in which examples run: it has sample_data, and deploy."""
    for name in ("sample_data", "deploy"):
        (tmp_path / name).symlink_to(ROOT / name)


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


def help_examples():
    """The examples of `--help` that read the sample data and end by themselves."""
    reference = (ROOT / "docs" / "cli.md").read_text("utf-8")
    lines = "\n".join(re.findall(r"^```sh\n(.*?)^```$", reference, re.DOTALL | re.MULTILINE))
    ending = [line for line in lines.splitlines() if "sample_data" in line]
    return [line for line in ending if not re.search(r"live|serve|send|mdtool store|diff", line)]


def test_examples_of_help_run(tmp_path):
    examples = help_examples()
    assert len(examples) > 10
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = "\n".join(f"{example} > /dev/null" for example in examples)
    command = ["bash", "-euo", "pipefail", "-xc", script]
    done = subprocess.run(
        command, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bars.parquet").is_file()


def test_no_example_reads_a_file_that_does_not_exist():
    for page in PAGES:
        for text, _ in blocks(page, "sh"):
            named = re.findall(r"[\w./-]+\.dbn(?:\.zst)?", text)
            made = set(re.findall(r"-o (\S+)", text)) | {"book.mbp-10.dbn.zst"}
            assert {name for name in named if name not in made} <= SAMPLE_FILES, page.name


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


def test_every_close_code_is_documented():
    page = (ROOT / "docs" / "gateway.md").read_text("utf-8")
    assert not [code for code in CloseCode if f"| {code.value} | " not in page]


def test_the_feeds_are_documented_as_the_table_has_them():
    page = (ROOT / "docs" / "gateway.md").read_text("utf-8")
    for row in TABLE.values():
        [line] = re.findall(rf"^\| {row.name} \| `/api.*$", page, re.MULTILINE)
        assert f"`/api/v2/{row.name}" in line
        assert f"| `{row.name}` | `{row.destination}" in line
        assert line.endswith(f"| `{row.graphql_field}` |")
        fields = ", ".join(f"`{field.name}`" for field in row.fields)
        assert f"| {row.name} | {fields}" in page


def test_the_example_of_settings_is_valid(tmp_path):
    [(text, _)] = blocks(ROOT / "docs" / "operations.md", "toml")
    (tmp_path / CONFIG_FILE).write_text(text)
    for section in tomllib.loads(text):
        load(SETTINGS[section], section, {})


def test_the_readme_is_short():
    assert (ROOT / "README.md").stat().st_size <= MAX_README_BYTES


STEP = re.compile(r"^\| (`.*`) \| \[[^\]]+\]\(\.\./([^)]+)\) \|", re.MULTILINE)
"""A row of architecture.md: the functions of a step, and their file."""


def test_the_functions_that_data_passes_exist():
    steps = STEP.findall((ROOT / "docs" / "architecture.md").read_text("utf-8"))
    assert len(steps) > 30
    for names, path in steps:
        defined = definitions(ast.parse((ROOT / path).read_text("utf-8")))
        for name in re.findall(r"`([^`]+)`", names):
            assert name in defined, (name, path)


def definitions(tree):
    """The functions of a module, and of its classes as `Class.method`."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = {node.name for node in tree.body if isinstance(node, functions)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}.{each.name}" for each in node.body if isinstance(each, functions)
            }
    return names


def properties(schema):
    """The names of all properties in a schema, nested ones too."""
    if isinstance(schema, list):
        return {name for each in schema for name in properties(each)}
    if not isinstance(schema, dict):
        return set()
    own = schema.get("properties")
    names = set(own) if isinstance(own, dict) else set()
    return names.union(*map(properties, schema.values()))


def test_every_field_of_a_response_has_its_meaning_and_unit():
    text = (ROOT / "docs" / "responses.md").read_text("utf-8")
    documented = set(re.findall(r"`([\w.]+)`", text))
    fields = properties([_row_schema(row.fields) for row in TABLE.values()]) | properties(
        dict(SCHEMAS)
    )
    assert len(fields) > 20
    assert fields <= documented
