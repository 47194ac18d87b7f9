"""The options of `mdtool book --live`, and which others go with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import typer

from mdtool.cli.options import given_options
from mdtool.core.errors import UsageError

_ALONGSIDE: Final = frozenset({"live", "speed", "inputs", "symbols", "start", "end"})


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """Whether books are shown on the whole terminal, and how fast their stream is played."""

    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Show the book full-screen while the stream is replayed; h lists the keys. "
            "INPUT may also be the HOST:PORT of a sender.",
        ),
    ] = False
    speed: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=0,
            help="Replay speed: 1 is real time, the default for files; 0 as fast as possible, "
            "the default for pipes and senders.",
            show_default=False,
        ),
    ] = None

    def check(self, context: typer.Context) -> None:
        """Reject options that do not apply to the live view, or without it apply to nothing.

        Raises
        ------
        UsageError
        """
        if not self.live:
            if self.speed is not None:
                raise UsageError("--speed is for --live; else pace with replay-dbn --speed")
            return
        for name, shown in given_options(context):
            if name not in _ALONGSIDE:
                raise UsageError(f"{shown}: does not go with --live; leave one out")
