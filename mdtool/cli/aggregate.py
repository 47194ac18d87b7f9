"""`mdtool aggregate`: bars of trades as a filter, and the aggregation service."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from mdtool.cli.completion import one_of, some_of
from mdtool.cli.filter_options import FilterOptions, with_filter
from mdtool.cli.options import check_mode, given_options, option_bundle, with_settings
from mdtool.cli.output_options import OutputOptions, with_output
from mdtool.cli.progress import Progress
from mdtool.core.errors import EXIT_OK, CorruptStreamError, UsageError
from mdtool.core.units import counted
from mdtool.services.aggregator.config import AggregatorConfig

if TYPE_CHECKING:
    from mdtool.adapters.dbn_source import RecordSource
    from mdtool.core.batch import Batch
    from mdtool.engine.bar_stream import BarStream

log = logging.getLogger(__name__)

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True)
class BarOptions:
    """What makes a bar."""

    interval: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Length of the bars, such as 1s, 90s, 5m, 1d, 1w (from Monday on) or 1mo.",
            show_default="1m",
        ),
    ] = None
    by: Annotated[
        str | None,
        typer.Option(
            metavar="MEASURE=N",
            help="Bars by size instead of by time: volume=N, ticks=N or notional=N.",
        ),
    ] = None
    fill: Annotated[
        str,
        typer.Option(
            help="Bars of intervals without trades: none, prev (repeats the last close) or zero.",
            autocompletion=one_of(("none", "prev", "zero")),
        ),
    ] = "none"
    clock: Annotated[
        str,
        typer.Option(
            help="The time that assigns a trade to its bar: ts_recv or ts_event.",
            autocompletion=one_of(("ts_recv", "ts_event")),
        ),
    ] = "ts_recv"
    lateness: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="How long a bar stays open after its end, for late trades."
        ),
    ] = None
    consolidate: Annotated[
        bool,
        typer.Option(
            "--consolidate", help="One bar of each symbol for all publishers of its dataset."
        ),
    ] = False

    tz: Annotated[
        str | None,
        typer.Option(
            metavar="ZONE",
            help="Time zone of 1d, 1w and 1mo, such as America/New_York. [default: UTC]",
        ),
    ] = None
    label: Annotated[
        str,
        typer.Option(
            help="Which of a bar's times is its ts_event: start or end.",
            autocompletion=one_of(("start", "end")),
        ),
    ] = "start"
    extras: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="FIELDS",
            help="Add count (of trades), vwap, or both, separated by a comma; not in DBN.",
            autocompletion=some_of(("count", "vwap")),
        ),
    ] = ""

    def stream(self, session: str | None) -> BarStream:
        """Return the engine that makes these bars, of days of a session or of midnight.

        Raises
        ------
        UsageError
            When the options contradict each other or cannot be read.
        """
        from mdtool.engine.bar_stream import BarStream

        return BarStream.parse(
            self.interval,
            self.by,
            self.fill,
            self.clock,
            self.lateness,
            self.tz,
            session,
            self.label,
            [name for text in self.extras.split(",") if (name := text.strip())],
        )


@app.command()
@with_settings(AggregatorConfig, "aggregate")
@with_output
@with_filter
@option_bundle(BarOptions, "bars", "Bars")
def aggregate(
    bars: BarOptions,
    selected: FilterOptions,
    output: OutputOptions,
    config: AggregatorConfig,
    context: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", help="DBN files, folders or zips of them, or - for stdin."),
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild",
            help="Make the sessions and bars of the store again from its trades, and end.",
        ),
    ] = False,
) -> int:
    """Aggregate the trades of INPUT to OHLCV bars; without INPUT, run the aggregation service.

    The trades of MBO are its T records; bars make bars of a multiple of their interval. Where INPUT
    shows a trade in several schemas it is counted once, in the first that its instrument has of
    trades, mbo, tcbbo, mbp-1 or tbbo, cmbp-1, mbp-10; --schema chooses one. A bar's ts_event is its
    start. A bar is written as soon as the stream has passed its end. DBN has bars of 1s,
    1m, 1h and 1d; others, and bars with more fields, are written as CSV, JSON, Parquet or Arrow.

    Example: mdtool aggregate sample_data/trades.dbn.zst --interval 5m --csv

    Example: mdtool aggregate sample_data/trades.dbn.zst --interval 1d --tz America/Chicago
    --session 17:00 -J

    Example: mdtool aggregate sample_data/trades.dbn.zst --interval 90s --with count,vwap
    -o bars.parquet

    Example: mdtool simulate --speed 1 | mdtool aggregate - --interval 1s --json

    Example: mdtool aggregate sample_data/trades.dbn.zst --interval 1m | mdtool aggregate -
    --interval 1h --csv

    Example: mdtool aggregate --port 50051

    Example: mdtool aggregate --rebuild --session '17:00 America/Chicago'

    Example: mdtool aggregate --bus kafka://127.0.0.1:9092
    """
    check_mode(context, AggregatorConfig, not inputs, shared=("inputs", "session", "rebuild"))
    if rebuild:
        return _rebuild(inputs, config)
    if inputs:
        is_given = any(name == "session" for name, _ in given_options(context))
        stream = bars.stream(config.session if is_given else None)
        return _filter(inputs, bars, selected, output, stream)
    from mdtool.core.lifecycle import run_service

    if config.bus:
        from mdtool.services.aggregator.kafka_aggregator import KafkaAggregator

        return run_service(KafkaAggregator(config))
    from mdtool.services.aggregator.server import Aggregator

    return run_service(Aggregator(config))


def _rebuild(inputs: list[str] | None, config: AggregatorConfig) -> int:
    from mdtool.adapters.stores import open_history, open_store
    from mdtool.cli.store.target import url_of
    from mdtool.core.config import load
    from mdtool.services.store.config import StoreConfig
    from mdtool.services.store.rebuild import rebuild

    if inputs:
        raise UsageError("--rebuild: reads the store; leave out INPUT")
    url = url_of(load(StoreConfig, "store", {"store": config.store or None}))
    with open_history(url) as history:  # which creates nothing
        history.symbols()
    with open_store(url) as store, Progress("trades") as progress:
        store.claim()
        done = rebuild(store, config, progress.show)
    typer.echo(
        f"{store.address}: made the sessions and bars of {counted(done.symbols, 'symbol')} again "
        f"from {counted(done.trades, 'trade')}; {done.differing:,} were other ones before"
    )
    return EXIT_OK


def _filter(
    paths: list[str],
    bars: BarOptions,
    selected: FilterOptions,
    output: OutputOptions,
    stream: BarStream,
) -> int:
    from mdtool.adapters.dbn_trades import TradeSource
    from mdtool.wire.dbn_metadata import derived

    opened = selected.open(paths, consolidates=bars.consolidate)
    with TradeSource(opened, stream.bar_rtypes) as source:
        metadata = derived(source.metadata, stream.schema)
        _check_format(stream, output)
        is_quiet = output.quiet or output.is_table
        try:
            with (
                output.open(metadata, source.size_bytes is None, stream.rtype) as sink,
                Progress("trades", source.size_bytes, is_quiet) as progress,
            ):
                for batch in _bars(source, stream, progress):
                    sink.write(batch)
                    if source.size_bytes is None:
                        sink.flush()
        finally:
            _report(source.name, stream)
    return EXIT_OK


def _check_format(stream: BarStream, output: OutputOptions) -> None:
    """Reject DBN for bars that other readers of DBN would misread or skip."""
    if stream.schema is None and not output.is_table and output.format().startswith("dbn"):
        raise UsageError(
            "DBN: has bars of 1s, 1m, 1h and 1d, labelled by their start, without more fields; "
            "give -C, -J or -o FILE.parquet"
        )


def _bars(source: RecordSource, stream: BarStream, progress: Progress) -> Iterator[Batch]:
    """Yield bars; of a stream that breaks off, also those of all that came before."""
    try:
        for batch in source:
            yield from stream.update(batch)
            progress.show(stream.trades, source.bytes_read)
    except CorruptStreamError:
        yield from stream.close()
        raise
    yield from stream.close()


def _report(name: str, stream: BarStream) -> None:
    if stream.late:
        log.warning(
            "%s: %d of %s came after their bar had closed and are in none; a longer "
            "--lateness takes them",
            name,
            stream.late,
            counted(stream.trades, "trade"),
        )
    if stream.undefined:
        left_out = counted(stream.undefined, "trade")
        log.warning("%s: left out %s without a price, size or time", name, left_out)
