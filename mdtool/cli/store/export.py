"""`mdtool store export`: the trades of a store as a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from mdtool.cli.filter_options import RangeOptions, with_range
from mdtool.cli.options import with_settings
from mdtool.cli.progress import Progress
from mdtool.cli.store.target import url_of
from mdtool.core.errors import EXIT_OK, InputError, UsageError
from mdtool.core.units import counted
from mdtool.services.store.config import StoreConfig

if TYPE_CHECKING:
    from mdtool.adapters.dbn_select import Selection
    from mdtool.adapters.stores import TradeHistory
    from mdtool.services.store.export import DatasetSpec, StoredTrades

_MAX_NAMED: Final = 10


@with_settings(StoreConfig, "store", without=("keep", "metrics_port"))
@with_range
def export(
    selected: RangeOptions,
    config: StoreConfig,
    target: Annotated[
        str,
        typer.Argument(metavar="DIR|FILE", help="A folder, or a file of all trades."),
    ],
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="parquet, csv or dbn.",
            show_default="as FILE is named, else parquet",
        ),
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(
            metavar="KEYS",
            help="Folders by date, symbol, or both, such as date=2025-09-24/symbol=ESZ5; none for "
            "a single file.",
            show_default="date,symbol for DIR",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("-f", "--force", help="Replace an existing dataset.")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")] = False,
) -> int:
    """Export the trades of a store as a dataset that pyarrow, DuckDB and Polars read back equal.

    Columns: symbol (or its folder), exchange_timestamp, price, volume, ingest_timestamp, stream_id
    and sequence. Parquet has timestamps of nanoseconds in UTC and decimals of nine places, CSV
    whole nanoseconds and decimals. DBN has no streams: an imported DBN file counts as new.
    --start and --end are exchange times. A dataset is written as a whole, or not at all.

    Example: mdtool store export dataset --symbols AAPL,MSFT --start 2025-01-02

    Example: mdtool store export trades.csv
    """
    from mdtool.adapters.stores import open_history
    from mdtool.services.store.export import export as write

    spec = _spec(target, file_format, partition, force)
    selection = selected.selection()
    with open_history(url_of(config)) as history:
        stored = selected_trades(history, selection)
        # How many of them are in a range of time is not known before.
        count = None if selected.start or selected.end else stored.count
        with Progress("trades", count, quiet) as progress:
            exported = write(stored, spec, lambda written: progress.show(written, written))
    trades, files = counted(exported.trades, "trade"), counted(exported.files, "file")
    typer.echo(f"{spec.path}: {trades} in {files}")
    return EXIT_OK


def _spec(target: str, file_format: str | None, partition: str | None, force: bool) -> DatasetSpec:
    from mdtool.adapters.datasets import FORMATS
    from mdtool.adapters.datasets.partitions import KEYS, parse_keys
    from mdtool.services.store.export import DatasetSpec

    path = Path(target)
    named = path.suffix.removeprefix(".")
    if named == "zst":
        raise UsageError(f"{target}: datasets are not compressed; name it .dbn, or give parquet")
    is_file = named in FORMATS and not path.is_dir()
    chosen = file_format or (named if is_file else "parquet")
    if chosen not in FORMATS:
        raise UsageError(f"--format {chosen}: choose from {', '.join(FORMATS)}")
    keys = parse_keys(partition) if partition else (() if is_file else KEYS)
    if not keys and is_file and chosen != named:
        raise UsageError(f"{target}: is named .{named}, but --format is {chosen}")
    return DatasetSpec(path, chosen, keys, force)


def selected_trades(history: TradeHistory, selection: Selection | None) -> StoredTrades:
    """Return the trades of a store that a command's options select.

    Raises
    ------
    InputError
        When the store has none of a symbol.
    """
    from mdtool.services.store.export import StoredTrades

    if selection is None:
        return StoredTrades(history)
    trades = StoredTrades(history, selection.symbols, selection.start_ns, selection.end_ns)
    missing = sorted(set(selection.symbols or ()) - set(trades.symbols))
    if missing:
        known = [totals.symbol for totals in history.symbols()]
        more = ", ..." if len(known) > _MAX_NAMED else ""
        there = ", ".join(known[:_MAX_NAMED]) or "none at all"
        raise InputError(
            f"{history.address}: has no trades of {', '.join(missing)}; there are {there}{more}"
        )
    return trades
