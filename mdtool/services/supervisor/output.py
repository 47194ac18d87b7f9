"""The output of child processes on the supervisor's stderr, each line with the child's name."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TextIO, TypeAlias

from mdtool.core.logs import SEPARATOR
from mdtool.core.units import format_time
from mdtool.services.supervisor.programs import Program

MAX_LINE_BYTES: Final = 1 << 16
"""A longer line is printed in pieces: memory is bounded whatever a child prints."""
_COLOURS: Final = (36, 33, 32, 35, 34)

Style: TypeAlias = Callable[[str], str]
"""Formats a child's line."""


class LineSplitter:
    """Cuts bytes that arrive in chunks of any size into lines of text."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that `data` completes, without their ends."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        return [_text(line) for line in lines]

    def finish(self) -> list[str]:
        """Return the rest, an unfinished line."""
        rest, self._rest = self._rest, b""
        return [_text(rest)] if rest else []


def styles(
    programs: Sequence[Program], log_format: str, stream: TextIO = sys.stderr
) -> dict[str, Style]:
    """Return the format of each program's lines on `stream`."""
    names = [name for program in programs for name in (program.name, *program.services)]
    if log_format == "json":
        found = {name: _json_style(name) for name in names}
    else:
        width = max(map(len, names), default=0)
        coloured = stream.isatty() and not os.environ.get("NO_COLOR")
        found = {
            name: _prefix_style(
                name.ljust(width), _COLOURS[i % len(_COLOURS)] if coloured else None
            )
            for i, name in enumerate(names)
        }
    return {
        program.name: _style_of_each(
            {name: found[name] for name in program.services}, found[program.name]
        )
        for program in programs
    }


def _style_of_each(named: Mapping[str, Style], other: Style) -> Style:
    """Return the style of lines that begin with a service's name, or with none of `named`."""

    def styled(line: str) -> str:
        name, separator, rest = line.partition(SEPARATOR)
        return named[name](rest) if separator and name in named else other(line)

    return styled


def write_line(line: str) -> None:
    """Write a line to stderr at once; a closed stderr does not stop the services."""
    with contextlib.suppress(OSError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _prefix_style(label: str, colour: int | None) -> Style:
    prefix = f"{label} |" if colour is None else f"\x1b[{colour}m{label} |\x1b[0m"
    return lambda line: f"{prefix} {line}".rstrip()


def _json_style(name: str) -> Style:
    """Return the style that adds a `service` to JSON lines, and wraps other lines in JSON."""

    def styled(line: str) -> str:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            entry = {"time": format_time(time.time_ns()), "level": "info", "message": line}
        return json.dumps({"service": name, **entry})

    return styled


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace")
