"""`mdtool config`: the settings in force, their origins, and the sample."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import fields

import pytest
from typer.testing import CliRunner

from mdtool.cli.app import app
from mdtool.cli.config import _CLASSES, _class
from mdtool.core.config import SECTIONS, TABLES, field_types, load, load_table
from mdtool.core.errors import ConfigError
from mdtool.core.permissions import Grant, Roles
from mdtool.services.alerts.rules import load_rules
from mdtool.services.limits import QuotaConfig

pytestmark = pytest.mark.usefixtures("no_settings", "root_logger")


def config(*arguments):
    done = CliRunner().invoke(app, ["config", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_every_section_has_its_settings():
    assert _CLASSES.keys() == SECTIONS


def test_what_is_printed_is_a_settings_file_that_changes_nothing(tmp_path):
    printed = config()
    assert tomllib.loads(printed).keys() == SECTIONS
    before = {section: load(_class(section), section, {}) for section in SECTIONS}
    (tmp_path / "mdtool.toml").write_text(printed)
    assert {section: load(_class(section), section, {}) for section in SECTIONS} == before


def test_the_sample_has_every_setting_as_a_comment():
    text = config("--sample")
    assert tomllib.loads(text) == {section: {} for section in SECTIONS}
    named, *tables = re.split(r"^# \[", text, flags=re.MULTILINE)
    assert {table.partition(".")[0] for table in tables} == TABLES - {"tls"}
    for section in re.split(r"^\[", named, flags=re.MULTILINE)[1:]:
        name, _, body = section.partition("]")
        settings = {key.replace("_", "-") for key in field_types(_class(name))}
        assert set(re.findall(r"^# ([a-z-]+) =", body, re.MULTILINE)) == settings
    assert max(map(len, text.splitlines())) <= 80


def test_every_line_of_the_sample_is_valid_when_it_is_no_comment_any_more(tmp_path):
    text = re.sub(r"^# (?=[a-z-]+ =|\[)", "", config("--sample"), flags=re.MULTILINE)
    (tmp_path / "mdtool.toml").write_text(text)
    sample = tomllib.loads(text)
    Roles(sample["roles"])
    assert sample["roles"]["desk"].keys() == {each.name for each in fields(Grant)} | {
        "certificates"
    }
    load_rules()
    quota = sample["quotas"]["desk"]
    load_table(QuotaConfig, "quotas", "desk", quota)
    assert {key.replace("-", "_") for key in quota} == field_types(QuotaConfig).keys()
    for section, given in sample.items():
        if section in TABLES - {"tls"}:
            continue
        kinds = field_types(_class(section))
        assert {key.replace("-", "_"): type(value) for key, value in given.items()} == kinds
        load(_class(section), section, {})


def test_a_setting_that_is_not_valid_is_all_that_is_printed(monkeypatch):
    monkeypatch.setenv("MDTOOL_VWAP_PORT", "none")
    done = CliRunner().invoke(app, ["config"])
    assert isinstance(done.exception, ConfigError)
    assert done.stdout == ""


def test_options_of_a_command_are_shown_with_their_names(tmp_path):
    (tmp_path / "mdtool.toml").write_text("[serve]\nvwap-port = 9\nmemory = true\n")
    lines = config("serve", "all", "--gateway-port", "8088", "--no-memory", "-J").splitlines()
    rows = {row["setting"]: (row["value"], row["origin"]) for row in map(json.loads, lines)}
    assert rows["gateway-port"] == (8088, "--gateway-port")
    assert rows["memory"] == (False, "--no-memory")
    assert rows["vwap-port"] == (9, "mdtool.toml: [serve] vwap-port")
    assert rows["rate"] == (1000.0, "default")


def test_passwords_and_secrets_are_hidden(monkeypatch):
    monkeypatch.setenv("MDTOOL_GATEWAY_STORE", "postgresql://me:word@host/name")
    monkeypatch.setenv("MDTOOL_GATEWAY_TURN_SECRET", "word")
    text = config("gateway")
    assert "word" not in text
    assert "postgresql://me:***@host/name" in text
