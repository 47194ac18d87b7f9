"""`mdtool store replay`: the trades of a store as a stream, at a pace."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from mdtool.cli.filter_options import RangeOptions, with_range
from mdtool.cli.options import with_settings
from mdtool.cli.output_options import OutputOptions, with_output
from mdtool.cli.replay_dbn import write_paced
from mdtool.cli.store.export import selected_trades
from mdtool.cli.store.target import url_of
from mdtool.core.errors import EXIT_OK, UsageError
from mdtool.services.store.config import StoreConfig


@with_settings(StoreConfig, "store", without=("keep", "metrics_port"))
@with_output
@with_range
def replay(
    selected: RangeOptions,
    output: OutputOptions,
    config: StoreConfig,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="TIME", hidden=True, help="As --start.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="TIME", hidden=True, help="As --end.")
    ] = None,
    speed: Annotated[
        float,
        typer.Option(
            min=0, help="Replay speed: 1 is real time, 10 ten times as fast, 0 as fast as possible."
        ),
    ] = 0.0,
) -> int:
    """Replay the trades of a store in order of exchange time: DBN in a pipe, or any other output.

    A pipe into `mdtool send -` sends them into a running stack, where they count as new ones.
    --start and --end (or --from and --to) are exchange times, and so is ts_recv of the records.

    Example: mdtool store replay --symbols AAPL --start 2025-01-02 --speed 10 | mdtool send -

    Example: mdtool store replay --start 2025-01-02T14:30 --end 2025-01-02T15:00 -C -p -s
    """
    from mdtool.adapters.stores import open_history
    from mdtool.services.store.replay import StoredSource

    for former, latter, given in (
        ("--start", "--from", (selected.start, from_)),
        ("--end", "--to", (selected.end, to)),
    ):
        if None not in given:
            raise UsageError(f"{former} and {latter}: choose one")
    selected = replace(
        selected,
        start=selected.start if from_ is None else from_,
        end=selected.end if to is None else to,
    )
    selection = selected.selection()
    with open_history(url_of(config)) as history:
        source = StoredSource(history.address, selected_trades(history, selection))
        write_paced(source, output, speed, "ts_event")
    return EXIT_OK
