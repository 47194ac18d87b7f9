"""What becomes of a test that needs a program which is not there."""

from __future__ import annotations

import subprocess

import pytest

from tests.support import requirements


def test_a_test_without_its_program_is_skipped(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(requirements.REQUIRE_ALL, raising=False)
    with pytest.raises(pytest.skip.Exception, match="chromium or"):
        requirements.needs("chromium")


def test_it_fails_where_everything_is_required(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv(requirements.REQUIRE_ALL, "1")
    with pytest.raises(pytest.fail.Exception, match="redis-server"):
        requirements.needs("redis")


def test_the_packages_of_the_lock_file_can_be_required():
    modules = requirements.node_modules()
    script = "console.log(typeof require('@stomp/stompjs').Client)"
    result = subprocess.run(
        [requirements.needs("node"), "-e", script],
        env={"NODE_PATH": str(modules)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "function"
