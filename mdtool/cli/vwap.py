"""`mdtool vwap`: rolling VWAPs of trades as a filter, and the VWAP feed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer

from mdtool.cli.filter_options import FilterOptions, with_filter
from mdtool.cli.options import check_mode, option_bundle, with_settings
from mdtool.cli.output_options import OutputOptions, with_output
from mdtool.cli.progress import Progress
from mdtool.core.errors import EXIT_OK, UsageError
from mdtool.core.units import counted
from mdtool.services.vwap.config import VwapConfig

if TYPE_CHECKING:
    from mdtool.engine.vwap import VwapStream

log = logging.getLogger(__name__)

app = typer.Typer(add_completion=False)

_SHARED: Final = frozenset({"inputs", "window"})
"""Parameters of both the filter and the service."""
_SCHEMA: Final = "statistics"


@dataclass(frozen=True, slots=True)
class WindowOptions:
    """What a window is of, beside its length."""

    clock: Annotated[
        str, typer.Option(help="The time that a window such as 5m uses: ts_recv or ts_event.")
    ] = "ts_recv"
    consolidate: Annotated[
        bool,
        typer.Option(
            "--consolidate", help="One window of each symbol for all publishers of its dataset."
        ),
    ] = False

    tz: Annotated[
        str | None,
        typer.Option(metavar="ZONE", help="Time zone of --window session. [default: UTC]"),
    ] = None
    session: Annotated[
        str | None,
        typer.Option(
            metavar="HH:MM", help="When sessions of --window session begin. [default: 00:00]"
        ),
    ] = None

    def stream(self, window: str) -> VwapStream:
        """Return the engine of these windows.

        Raises
        ------
        UsageError
            When there is no such clock, or the window is not valid.
        """
        from mdtool.core.buckets import MIDNIGHT, UTC_ZONE, CalendarBuckets
        from mdtool.core.records import CLOCKS
        from mdtool.engine.vwap import (
            SESSION_WINDOW,
            AnchoredVwap,
            RollingVwap,
            VwapStream,
            Window,
        )

        if self.clock not in CLOCKS:
            raise UsageError(f"--clock {self.clock}: choose from {', '.join(CLOCKS)}")
        if window == SESSION_WINDOW:
            sessions = CalendarBuckets("d", self.tz or UTC_ZONE, self.session or MIDNIGHT)
            return VwapStream(AnchoredVwap(sessions), self.clock)
        if self.tz or self.session:
            raise UsageError("--tz and --session: are for --window session")
        return VwapStream(RollingVwap(Window.parse(window)), self.clock)


@app.command()
@with_settings(VwapConfig, "vwap")
@with_output
@with_filter
@option_bundle(WindowOptions, "windows")
def vwap(
    windows: WindowOptions,
    selected: FilterOptions,
    output: OutputOptions,
    config: VwapConfig,
    context: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", help="DBN files, folders or zips of them, or - for stdin."),
    ] = None,
) -> int:
    """Compute the rolling VWAP after each trade of INPUT; without INPUT, serve the VWAP feed.

    A window has an instrument's last trades, by count (--window 100) or by time (--window 5m), or
    those since its session began (--window session), at the same cost whatever its size. The output
    is DBN statistics records with stat_type 13: price is the VWAP, rounded to the nearest 1e-9,
    quantity the window's volume.

    Trades enter a window in order of arrival. In a window by time a late trade counts as if it had
    the time of the latest trade before it; one that is late by more than the window is left out
    and counted.

    Example: mdtool vwap sample_data/trades.dbn.zst --window 5m --csv

    Example: mdtool vwap sample_data/trades.dbn.zst --window session --tz America/New_York
    --session 09:30 --csv

    Example: mdtool simulate --schema trades -l 500 | mdtool vwap - --window 100 --json -p -s

    Example: mdtool vwap --port 8888 --window 100
    """
    check_mode(context, VwapConfig, not inputs, shared=_SHARED)
    if inputs:
        return _filter(inputs, config.window, windows, selected, output)
    from mdtool.core.lifecycle import run_service
    from mdtool.services.vwap.server import VwapFeed

    return run_service(VwapFeed(config))


def _filter(
    paths: list[str],
    window: str,
    windows: WindowOptions,
    selected: FilterOptions,
    output: OutputOptions,
) -> int:
    from mdtool.adapters.dbn_trades import TradeSource
    from mdtool.wire.dbn_metadata import derived

    stream = windows.stream(window)
    opened = selected.open(paths, consolidates=windows.consolidate)
    with TradeSource(opened) as source:
        is_quiet = output.quiet or output.is_table
        try:
            with (
                output.open(derived(source.metadata, _SCHEMA), source.size_bytes is None) as sink,
                Progress("trades", source.size_bytes, is_quiet) as progress,
            ):
                for batch in source:
                    for made in stream.update(batch):
                        sink.write(made)
                    progress.show(stream.trades, source.bytes_read)
                    if source.size_bytes is None:
                        sink.flush()
        finally:
            _report(source.name, stream)
    return EXIT_OK


def _report(name: str, stream: VwapStream) -> None:
    if stream.late:
        log.warning(
            "%s: left out %d of %s, which came later than their window is long",
            name,
            stream.late,
            counted(stream.trades, "trade"),
        )
    if stream.early:
        log.warning(
            "%s: %s left their windows early, for these can hold no more volume",
            name,
            counted(stream.early, "trade"),
        )
    if stream.undefined:
        left_out = counted(stream.undefined, "trade")
        log.warning("%s: left out %s without a price, size or time", name, left_out)
