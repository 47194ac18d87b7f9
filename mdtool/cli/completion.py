"""What the shell's completion offers as the values of options and arguments."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import typer

from mdtool.core.errors import MdtoolError

Offer = Callable[[Any, str], list[str]]


def one_of(choices: Iterable[str]) -> Offer:
    """Return what offers those of `choices` that begin as the word does."""

    def offer(_context: typer.Context, incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return offer


def some_of(choices: Iterable[str]) -> Offer:
    """Return what offers further names of a list that is separated by commas."""

    def offer(_context: typer.Context, incomplete: str) -> list[str]:
        return _further(choices, incomplete)

    return offer


def schemas(_context: typer.Context, incomplete: str) -> list[str]:
    """Offer the schemas of DBN."""
    from mdtool.wire.dbn_records import RTYPES

    return [schema for schema in RTYPES if schema.startswith(incomplete)]


def symbols(context: typer.Context, incomplete: str) -> list[str]:
    """Offer the symbols in the headers of the files that the command line names so far."""
    from mdtool.adapters.dbn_files import open_merged

    # Without the value that is being completed, arguments are not parsed: they are left over.
    given = context.params.get("inputs") or context.params.get("files") or ()
    words = [*given, *context.args, *getattr(context, "_protected_args", ())]
    paths = list(dict.fromkeys(word for word in words if Path(word).exists()))
    if not paths:
        return []
    with contextlib.suppress(MdtoolError, OSError), open_merged(paths) as source:
        return _further(sorted(source.metadata.mappings), incomplete)
    return []


def _further(choices: Iterable[str], incomplete: str) -> list[str]:
    before, comma, word = incomplete.rpartition(",")
    named = before.split(",")
    return [
        f"{before}{comma}{choice}"
        for choice in choices
        if choice.startswith(word) and choice not in named
    ]
