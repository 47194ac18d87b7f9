"""Log lines, for people and for machines."""

from __future__ import annotations

import contextvars
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


@pytest.mark.parametrize(
    ("message", "event"),
    [
        ("%s: refused a tick: %s", "refused-tick"),
        ("aggregator %s: connected", "aggregator-connected"),
        ("%s: draining for %g s", "draining-for"),
        ("the store is available again", "the-store-is-available-again"),
        ("%s %s; starting it again in %.1f s", "starting-it-again-in"),
        ("no room for symbol %s: its trades and those of others", "no-room-for-symbol-its"),
        ("%s: %s", "json-lines"),
    ],
)
def test_events_are_named_by_the_words_of_their_messages(message, event):
    assert logs.event_of("mdtool.adapters.json_lines", message) == event


def test_values_of_other_libraries_are_in_no_name_of_an_event(capsys):
    logs.configure("json", "info")
    logging.getLogger("aiohttp.server").info("client 127.0.0.1 has left")
    logging.getLogger("aiohttp.server").info("client %s has left", "127.0.0.1")
    logging.getLogger("mdtool.x").info("%s: ready on %s", "gateway", "127.0.0.1:8080")
    events = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert events == ["server", "client-has-left", "ready-on"]


def test_lines_have_the_principal_and_the_service_that_they_are_of(capsys):
    logs.configure("json", "info")
    log = logging.getLogger("mdtool.x")
    within = contextvars.copy_context()
    within.run(logs.PRINCIPAL.set, "desk-7")
    within.run(logs.SERVICE.set, "gateway")
    within.run(log.info, "within")
    contextvars.Context().run(log.info, "other", extra={"principal": "desk-8"})
    contextvars.Context().run(log.info, "none")
    found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [entry.get("principal") for entry in found] == ["desk-7", "desk-8", None]
    assert [entry.get("service") for entry in found] == ["gateway", None, None]
