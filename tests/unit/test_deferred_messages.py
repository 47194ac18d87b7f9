"""What is said while a full-screen view has the terminal."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mdtool.cli.terminal import MESSAGES_KEPT, DeferredMessages

CLOSED = """
import os, sys
from mdtool.cli.terminal import DeferredMessages
master, slave = os.openpty()
os.dup2(slave, 2)
with DeferredMessages():
    print("held", file=sys.stderr)
    os.close(master)
"""
"""A view whose terminal is closed while there are messages for it."""


@contextlib.contextmanager
def logging_to_stderr() -> Iterator[logging.Handler]:
    root = logging.getLogger()
    others, root.handlers = root.handlers, []  # such as those of commands that tests ran before
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    root.addHandler(handler)
    try:
        yield handler
    finally:
        root.handlers = others


def test_messages_are_written_afterwards_in_their_order(capsys):
    with logging_to_stderr(), DeferredMessages() as messages:
        logging.getLogger("mdtool.x").warning("no records of %s", "ABC")
        print("compiling", file=sys.stderr)
        assert capsys.readouterr().err == ""
        assert messages.last == "compiling"
    assert capsys.readouterr().err == "WARNING no records of ABC\ncompiling\n"


def fail_after_a_word() -> None:
    with DeferredMessages():
        print("held", file=sys.stderr)
        raise ZeroDivisionError


def test_stderr_is_what_it_was_even_after_an_error(capsys):
    before = sys.stderr
    with logging_to_stderr() as handler:
        with pytest.raises(ZeroDivisionError):
            fail_after_a_word()
        assert handler.stream is before
    assert sys.stderr is before
    assert capsys.readouterr().err == "held\n"


def test_only_the_last_messages_are_written(capsys):
    with DeferredMessages():
        for number in range(3 * MESSAGES_KEPT):
            print(number, file=sys.stderr)
    said = capsys.readouterr().err.split()
    assert said == [str(number) for number in range(2 * MESSAGES_KEPT, 3 * MESSAGES_KEPT)]


def test_a_closed_terminal_is_no_error():
    assert subprocess.run([sys.executable, "-c", CLOSED], check=False).returncode == 0
