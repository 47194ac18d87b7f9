"""`mdtool store backup`, `restore`, `compact` and `prune`: copies of a store, and less space."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from mdtool.cli.options import with_settings
from mdtool.cli.progress import Progress
from mdtool.cli.store.target import url_of
from mdtool.core.errors import OutputError, UsageError
from mdtool.core.units import counted, format_bytes, parse_option
from mdtool.services.store.config import StoreConfig

_Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")]


@with_settings(StoreConfig, "store", without=("keep", "metrics_port"))
def backup(
    config: StoreConfig,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The copy to create.")],
    force: Annotated[bool, typer.Option("-f", "--force", help="Replace an existing file.")] = False,
    quiet: _Quiet = False,
) -> None:
    """Copy a store in SQLite to FILE, as of one moment, while services write it.

    FILE appears once it is complete and on the disk. It is a store too: `mdtool digest
    sqlite:///FILE`, `mdtool store check` and every tool for SQLite read it. Stores in PostgreSQL
    and MongoDB are copied with pg_dump and mongodump.

    Example: mdtool store backup /backups/trades.db
    """
    from mdtool.adapters.datasets.writer import staged
    from mdtool.adapters.stores import open_care

    care = open_care(url_of(config))
    if file.is_dir():
        raise OutputError(f"{file}: is a folder; name a file in it")
    with (
        staged(file, "", force, is_folder=False) as made,
        Progress("MiB", None, quiet) as progress,
    ):
        care.back_up(made, _in_mib(progress))
    typer.echo(f"{file}: {format_bytes(file.stat().st_size)}, a copy of {care.address}")


@with_settings(StoreConfig, "store", without=("keep", "metrics_port"))
def restore(
    config: StoreConfig,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A copy that `store backup` made.")],
    force: Annotated[
        bool, typer.Option("-f", "--force", help="Replace a store that has trades.")
    ] = False,
    quiet: _Quiet = False,
) -> None:
    """Put a copy in place of a store in SQLite, once the services that use it have stopped.

    The copy is checked first. The store is replaced as a whole, or not at all. Senders that name
    their stream send again what they sent since the copy was made, if they still have it.

    Example: mdtool store restore /backups/trades.db --store sqlite:////var/lib/mdtool/mdtool.db
    """
    from mdtool.adapters.stores import open_care

    care = open_care(url_of(config, makes_folder=True))
    with Progress("MiB", None, quiet) as progress:
        care.restore(file, _in_mib(progress), replaces=force)
    typer.echo(f"{care.address}: restored from {file}, {format_bytes(file.stat().st_size)}")


@with_settings(StoreConfig, "store", without=("keep", "metrics_port"))
def compact(config: StoreConfig, quiet: _Quiet = False) -> None:
    """Make a store in SQLite smaller: trades that came one by one are joined into blocks.

    That is done while services write the store. Without them the file is rewritten too, which gives
    free space back to the disk, and needs as much space again meanwhile.

    Example: mdtool store compact
    """
    from mdtool.adapters.stores import open_care

    care = open_care(url_of(config))
    with Progress("symbols", None, quiet) as progress:
        done = care.compact(lambda count, _of: progress.show(count))
    line = (
        f"{care.address}: {counted(done.moved, 'trade')} joined; {format_bytes(done.used_after)} "
        f"in use, before {format_bytes(done.used_before)}"
    )
    if done.given_back is None:
        line += "; a service has the store, so its file keeps what is free for what comes"
    else:
        line += f"; {format_bytes(done.given_back)} given back"
    typer.echo(line)


@with_settings(StoreConfig, "store", without=("metrics_port",))
def prune(config: StoreConfig) -> None:
    """Delete the oldest trades of a store, with their bars, as `[store] keep` or --keep says.

    An age is exchange time, back from the latest trade of the store; a size is that of a store in
    SQLite, whose file does not shrink: the space is used again, or given back by `store compact`.
    Whole sessions are deleted, while services write the store. With `[store] keep` the aggregation
    service does so by itself.

    Example: mdtool store prune --keep 90d

    Example: mdtool store prune --keep 365d,100GB --store sqlite:////var/lib/mdtool/mdtool.db
    """
    import time

    from mdtool.adapters.stores import open_history, open_store
    from mdtool.core.config import load
    from mdtool.services.aggregator.config import AggregatorConfig
    from mdtool.services.store.retention import Keep, Retention, described

    if not config.keep:
        raise UsageError("store prune: what is kept is not said; give --keep, such as 90d,20GB")
    keep = parse_option("--keep", Keep.parse, config.keep)
    retention = Retention(keep, load(AggregatorConfig, "aggregate", {}).session)
    url = url_of(config)
    with open_history(url) as history:  # which creates nothing
        history.symbols()
    with open_store(url) as store:
        typer.echo(f"{store.address}: {described(retention.apply(store, time.time_ns()))}")


def _in_mib(progress: Progress) -> Callable[[int, int], None]:
    return lambda done, _of: progress.show(done >> 20)
