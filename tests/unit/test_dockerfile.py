"""deploy/Dockerfile: without faults that a linter knows, and of the version of the package."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

from mdtool import __version__
from tests.support.requirements import needs

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "Dockerfile"


def test_a_linter_finds_nothing():
    command = [needs("hadolint"), DOCKERFILE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_tag_of_the_image_is_the_version():
    [labelled] = re.findall(r"^ARG VERSION=(.*)$", DOCKERFILE.read_text(), re.MULTILINE)
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    pods = yaml.safe_load((DEPLOY / "kubernetes/components/pod/kustomization.yaml").read_text())
    [image] = pods["images"]
    found = {labelled, compose["services"]["mdtool"]["image"].partition(":")[2], image["newTag"]}
    assert found == {__version__}


def test_what_is_installed_is_what_the_package_requires():
    [extras] = re.findall(r"requirements\.py \S+ (.*) >", DOCKERFILE.read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    command = [sys.executable, DEPLOY / "requirements.py", ROOT / "pyproject.toml"]
    done = subprocess.run([*command, *extras.split()], capture_output=True, text=True, check=True)
    optional = [line for name in extras.split() for line in project["optional-dependencies"][name]]
    assert done.stdout.splitlines() == [*project["dependencies"], *optional]
    assert set(extras.split()) == set(project["optional-dependencies"]) - {"databento", "test"}
