"""Log lines, for people and for machines."""

from __future__ import annotations

import json
import logging
import re

import pytest

from mdtool.core import logs

pytestmark = pytest.mark.usefixtures("root_logger")


def test_text_lines_are_short_and_on_stderr(capsys):
    logs.configure("text", "info")
    logging.getLogger("mdtool.x").warning("%d ticks refused", 3)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"\d\d:\d\d:\d\d WARNING 3 ticks refused\n", err)


def test_json_lines_are_one_object_each(capsys):
    logs.configure("json", "info")
    logging.getLogger("mdtool.x").info("two\nlines and a %s", '"quote"')
    line = capsys.readouterr().err
    entry = json.loads(line)
    assert line.count("\n") == 1
    assert entry["level"] == "info"
    assert entry["logger"] == "mdtool.x"
    assert entry["message"] == 'two\nlines and a "quote"'
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", entry["time"])


def test_json_lines_carry_the_traceback(capsys):
    logs.configure("json", "info")
    try:
        int("odd")
    except ValueError:
        logging.getLogger("mdtool.x").exception("failed")
    entry = json.loads(capsys.readouterr().err)
    assert "ValueError: invalid literal" in entry["traceback"].splitlines()[-1]


def test_what_is_below_the_level_is_left_out(capsys):
    logs.configure("text", "warning")
    logging.getLogger("mdtool.x").info("quiet")
    assert capsys.readouterr().err == ""


def test_configuring_again_replaces_what_was(capsys):
    logs.configure("text", "info")
    logs.configure("json", "info")
    logging.getLogger("mdtool.x").info("once")
    assert json.loads(capsys.readouterr().err)["message"] == "once"
