"""`mdtool book --live`: an order book on the whole terminal, as its stream is played."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from mdtool.adapters.dbn_files import open_merged
from mdtool.adapters.dbn_select import SchemaSource, SelectedSource, Selection
from mdtool.adapters.dbn_source import RecordSource
from mdtool.adapters.dbn_tcp import connect_source
from mdtool.adapters.identity.config import client_token
from mdtool.cli.filter_options import RangeOptions
from mdtool.cli.live.feed import Feed
from mdtool.cli.live.playback import FLAT_OUT, REAL_TIME, Playback
from mdtool.cli.live.view import LiveView
from mdtool.cli.screen import show
from mdtool.cli.terminal import open_terminal
from mdtool.core.addresses import parse_address
from mdtool.core.batch import Batch
from mdtool.core.dtypes import F_LAST, MBO
from mdtool.core.errors import UsageError
from mdtool.engine.book.rebuild import WholeEvents
from mdtool.engine.book.state import Books

_MBO: Final = "mbo"


def run_live(
    inputs: Sequence[str],
    selected: RangeOptions,
    speed: float | None = None,
    consolidates: bool = False,
    token_file: str | None = None,
) -> int:
    """Show the books of DBN files, of `-` or of the stream at HOST:PORT until the user quits.

    Parameters
    ----------
    inputs : sequence of str
    selected : RangeOptions
        Records before the start are played at once, since the books need them.
    speed : float, optional
        1 is real time, 0 flat out; the default is 1 for files, and 0 for pipes and connections.
    consolidates : bool
        Whether the books of a symbol at all publishers are shown as one.
    token_file : str, optional
        File with the token for a sender; by default that of the environment.

    Returns
    -------
    int
        The exit status.

    Raises
    ------
    UsageError
        When there is no terminal, or an option is not valid.
    MdtoolError
        When the input cannot be read or is not MBO. An error while it is shown is raised once the
        user quits.
    """
    if speed is not None and not math.isfinite(speed):
        raise UsageError(f"--speed {speed}: give a number, 0 for flat out")
    selection = selected.selection() or Selection()
    with open_terminal() as terminal, _open(inputs, selection, token_file) as source:
        _load_kernels()
        if speed is None:
            speed = REAL_TIME if source.size_bytes is not None else FLAT_OUT
        feed = Feed(source, Playback(speed, selection.start_ns), consolidates=consolidates)
        status = show(LiveView(feed), terminal)
        if feed.error is not None:
            raise feed.error
        return status


def _load_kernels() -> None:
    """Load the kernels of the feed, or compile them, which is logged before the view begins."""
    record = np.zeros(1, MBO)
    record["flags"] = F_LAST
    for whole in WholeEvents().feed(Batch.of(record)):
        Books().apply(whole)


def _open(inputs: Sequence[str], selection: Selection, token_file: str | None) -> RecordSource:
    address = _address(inputs[0]) if len(inputs) == 1 else None
    if address is None:
        source = open_merged(inputs, _MBO)
    else:
        connected = connect_source(*address, client_token(token_file))
        try:
            source = SchemaSource(connected, _MBO)
        except BaseException:
            connected.close()
            raise
    # Books need the records before the start.
    selection = dataclasses.replace(selection, start_ns=None)
    return source if selection == Selection() else SelectedSource(source, selection)


def _address(text: str) -> tuple[str, int] | None:
    """Return the address of HOST:PORT, None for a file or standard input."""
    if Path(text).exists():
        return None
    try:
        return parse_address(text)
    except UsageError:
        return None
