"""`mdtool send`: trades as Tick frames to a TCP ingest server."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from mdtool.adapters.live import SOURCES
from mdtool.cli.completion import one_of
from mdtool.cli.filter_options import FilterOptions, with_filter
from mdtool.cli.options import with_settings
from mdtool.cli.progress import Progress
from mdtool.core.addresses import parse_address
from mdtool.core.errors import UsageError
from mdtool.core.units import ANY_PRICE
from mdtool.engine.simulate_defaults import SEED, SYMBOLS
from mdtool.services.send.config import SendConfig

if TYPE_CHECKING:
    from mdtool.adapters.tick_source import TickSource
    from mdtool.services.send.quotes import QuotePort

app = typer.Typer(add_completion=False)

_HOW_TO_REPEAT: Final = {
    True: "--again sends them again",
    False: "another --stream-id sends them again",
}
"""The hint for a stream that is named by its content, and for others."""


@app.command()
@with_settings(SendConfig, "send")
@with_filter
def send(
    selected: FilterOptions,
    config: SendConfig,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT|HOST:PORT",
            help="DBN files, folders or zips of them, a file of JSON lines, or - for "
            "standard input (the default); and the server's address.",
            show_default=False,
        ),
    ] = None,
    simulate: Annotated[
        bool,
        typer.Option("--simulate", help="Send the trades of a simulated market instead of INPUT."),
    ] = False,
    ingest: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Send the trades of a live source, such as kraken, instead of INPUT; --symbols "
            "names them, and [ingest] has its settings.",
            autocompletion=one_of(SOURCES),
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same trades.")] = SEED,
    limit: Annotated[
        int | None, typer.Option("-l", "--limit", metavar="N", min=0, help="Stop after N ticks.")
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="End at the first JSON line that is not a tick, instead of counting it.",
        ),
    ] = False,
    once: Annotated[
        bool,
        typer.Option(
            "--once/--again",
            help="Name the stream by the content of INPUT: the same files sent again change "
            "nothing.",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")] = False,
) -> int:
    """Send trades as Tick frames to a TCP ingest server, and print its acknowledgement.

    INPUT is DBN of any schema that shows trades (those of MBO are its T records; --schema chooses
    where there are several), or JSON lines such as
    {"symbol": "AAPL", "price": 150.25, "volume": 100, "exchange_timestamp": 1735201234567000000}.
    Lines that are not ticks are counted by reason and skipped. What was not committed when a
    connection was lost is resent.

    Example: mdtool replay-dbn sample_data/trades.dbn.zst --speed 10 | mdtool send 127.0.0.1:50050

    Example: mdtool send sample_data/trades.dbn.zst --stream-id day --rate 1000

    Example: mdtool send sample_data/trades.dbn.zst --once

    Example: mdtool send --simulate --rate 100

    Example: mdtool send --ingest kraken --symbols BTC/USD
    """
    from mdtool.core.lifecycle import run_service
    from mdtool.services.send.quotes import QuotePort
    from mdtool.services.send.sender import Sender
    from mdtool.services.send.ticks import limited, report_left_out

    paths, config = _addressed(inputs or [], config)
    if config.rate and config.speed:
        raise UsageError("--rate and --speed: choose one")
    if not math.isfinite(config.speed) or not math.isfinite(config.rate):
        raise UsageError("--rate and --speed expect a number; 0 is as fast as possible")
    if ingest is not None and (paths or simulate or once or config.rate or config.speed):
        raise UsageError("--ingest: a live source has its own time; leave out INPUT and the rest")
    if simulate and config.speed:
        raise UsageError("--speed is for recorded ticks; a simulated market goes by --rate")
    if once:
        config = _named_by_content(paths, selected, config, is_simulated=simulate)
    quotes = QuotePort(config.quotes_at) if config.quotes_at else None
    if ingest is not None:
        ticks = _live(ingest, selected, config, quotes)
    elif simulate:
        ticks = _simulated(paths, selected, seed, config.rate, quotes)
    else:
        ticks = _read(paths, selected, config, strict, quotes)
    if simulate and config.rate:
        config = dataclasses.replace(config, rate=0.0, speed=1.0)
    # Paced ticks are read ahead of their time: the bytes read would show no progress.
    size_bytes = None if config.rate or config.speed else ticks.size_bytes
    with contextlib.closing(ticks), Progress("ticks", size_bytes, quiet) as progress:
        runs = ticks if limit is None else limited(ticks, limit)
        sender = Sender(
            config,
            runs,
            lambda sent: progress.show(sent, ticks.bytes_read),
            is_of_now=simulate,
            quotes=quotes,
        )
        try:
            status = run_service(sender)
        finally:
            report_left_out(ticks, any_price=config.prices == ANY_PRICE)
            if sender.outcome is not None:
                hint = f"; {_HOW_TO_REPEAT[once]}" if sender.is_known else ""
                typer.echo(f"{sender.outcome}{hint}")
    return status


def _addressed(arguments: Sequence[str], config: SendConfig) -> tuple[list[str], SendConfig]:
    """Separate inputs from the HOST:PORT among them, which goes before the settings."""
    paths = []
    for argument in arguments:
        try:
            host, port = parse_address(argument)
        except UsageError:
            paths.append(argument)
        else:
            if Path(argument).exists():
                paths.append(argument)
            else:
                config = dataclasses.replace(config, host=host, port=port)
    return paths, config


def _named_by_content(
    paths: Sequence[str], selected: FilterOptions, config: SendConfig, *, is_simulated: bool
) -> SendConfig:
    from mdtool.services.send.ticks import content_stream_id

    if config.plain or config.stream_id is not None or is_simulated:
        raise UsageError(
            "--once names a stream of files: it takes no --plain, --stream-id or --simulate"
        )
    if not paths:
        raise UsageError("--once: needs INPUT; standard input cannot be recognised")
    any_price = config.prices == ANY_PRICE
    stream_id = content_stream_id(paths, selected.selection(), selected.schema, any_price=any_price)
    return dataclasses.replace(config, stream_id=stream_id)


def _read(
    paths: Sequence[str],
    selected: FilterOptions,
    config: SendConfig,
    is_strict: bool,
    quotes: QuotePort | None,
) -> TickSource:
    from mdtool.services.send.ticks import open_ticks

    any_price = config.prices == ANY_PRICE
    return open_ticks(
        paths or ["-"],
        selected.selection(),
        is_strict,
        selected.schema,
        any_price=any_price,
        quotes=quotes,
    )


def _live(
    source: str, selected: FilterOptions, config: SendConfig, quotes: QuotePort | None
) -> TickSource:
    from mdtool.services.send.ticks import live_ticks

    if selected.start or selected.end or selected.schema:
        raise UsageError("--start, --end and --schema select of INPUT, not of --ingest")
    symbols = [symbol.strip() for symbol in (selected.symbols or "").split(",") if symbol.strip()]
    return live_ticks(source, symbols, any_price=config.prices == ANY_PRICE, quotes=quotes)


def _simulated(
    paths: Sequence[str],
    selected: FilterOptions,
    seed: int,
    rate: float,
    quotes: QuotePort | None,
) -> TickSource:
    from mdtool.services.send.ticks import simulate_ticks

    if paths:
        raise UsageError(f"--simulate takes no INPUT: leave out {paths[0]}")
    if selected.start or selected.end or selected.schema:
        raise UsageError("--start, --end and --schema select of INPUT, not of --simulate")
    symbols = selected.symbols.split(",") if selected.symbols else SYMBOLS
    return simulate_ticks([symbol.strip() for symbol in symbols], seed, rate, quotes)
