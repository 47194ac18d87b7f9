"""`mdtool store import`: writes datasets into a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdtool.cli.options import with_settings
from mdtool.cli.progress import Progress
from mdtool.cli.store.target import open_writer, summary
from mdtool.core.errors import EXIT_OK
from mdtool.services.store.config import StoreConfig

if TYPE_CHECKING:
    from mdtool.adapters.datasets.trade_rows import TradeRows
    from mdtool.core.trades import Reason
    from mdtool.services.store.writer import RowWriter


@with_settings(StoreConfig, "store", without=("keep", "metrics_port"))
def import_(
    config: StoreConfig,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Folders of a dataset, or Parquet, CSV and DBN files."),
    ],
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")] = False,
) -> int:
    """Import datasets that `store export` wrote into any store.

    A trade is identified by its stream and its place in it, so importing again, or a part, changes
    nothing. A DBN file is a stream of its own, as in `mdtool store FILE`. All files are checked
    before the first trade is written.

    Example: mdtool store import dataset

    Example: mdtool store import trades.parquet --store sqlite:///copy.db
    """
    from mdtool.adapters.datasets.files import find_files, is_dbn, open_files

    found = find_files(paths)
    tables = open_files(found)
    size_bytes = sum(path.stat().st_size for path in found)
    rejected: Counter[Reason] = Counter()
    with (
        open_writer(config) as writer,
        Progress("trades", size_bytes, quiet) as progress,
    ):
        read_bytes = 0

        def show() -> None:
            progress.show(writer.new + writer.known, read_bytes)

        def rows() -> Iterator[TradeRows]:
            nonlocal read_bytes
            for file in tables:
                yield from file.rows()
                read_bytes += file.size_bytes

        try:
            writer.write_all(rows(), show)
            for path in filter(is_dbn, found):
                rejected += _write_dbn(path, writer, show)
                read_bytes += path.stat().st_size
        finally:
            progress.clear()
            typer.echo(summary(", ".join(paths), writer, rejected))
    return EXIT_OK


def _write_dbn(path: Path, writer: RowWriter, show: Callable[[], None]) -> Counter[Reason]:
    from mdtool.services.store.dbn_input import DbnInput

    with DbnInput([str(path)]) as source:
        source.identify(writer.streams)
        writer.write_all(source.rows(), show)
        return source.rejected
