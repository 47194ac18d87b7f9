"""`mdtool detect`: what is unusual in trades and quotes, as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from mdtool.cli.filter_options import FilterOptions, with_filter
from mdtool.cli.progress import Progress

if TYPE_CHECKING:
    from mdtool.engine.detect import Alert

app = typer.Typer(add_completion=False)


@app.command()
@with_filter
def detect(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT", help="DBN files, folders or zips of them, or - for stdin."),
    ],
    selected: FilterOptions,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")] = False,
) -> None:
    """Report what is unusual in INPUT: an alert a line, in JSON, once its episode has ended.

    Kinds: jump, burst (of volume), off-quote (a trade), crossed (or locked), spread, stale, gap (in
    the sequence), band. Each compares a symbol with what it usually does; none predicts anything.
    Settings are by pattern of symbols, in sections such as [detect."ES*"] of mdtool.toml.

    Example: mdtool detect sample_data/mbo.dbn.zst

    Example: mdtool simulate --schema mbp-1 --duration 5m | mdtool detect -
    """
    from mdtool.engine.detect import DetectStream
    from mdtool.services.alerts.config import load_rules

    stream = DetectStream(load_rules())
    with (
        selected.open(inputs) as source,
        Progress("records", source.size_bytes, quiet) as progress,
    ):
        for batch in source:
            _print(stream.update(batch))
            progress.show(stream.records, source.bytes_read)
        _print(stream.finish())


def _print(alerts: Iterable[Alert]) -> None:
    for alert in alerts:
        print(json.dumps(alert.as_dict()), flush=True)
