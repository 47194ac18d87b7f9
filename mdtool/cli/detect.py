"""`mdtool detect`: what is unusual in trades and quotes, of files or live, as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from mdtool.cli.filter_options import FilterOptions, with_filter
from mdtool.cli.options import check_mode, with_settings
from mdtool.cli.progress import Progress
from mdtool.core.errors import EXIT_OK, InputError
from mdtool.services.alerts.config import DetectConfig

if TYPE_CHECKING:
    from mdtool.engine.detect import Alert

app = typer.Typer(add_completion=False)


@app.command()
@with_settings(DetectConfig, "detect")
@with_filter
def detect(
    selected: FilterOptions,
    config: DetectConfig,
    context: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", help="DBN files, folders or zips of them, or - for stdin."),
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")] = False,
) -> int:
    """Report what is unusual in INPUT, as lines of JSON; without INPUT, in a live market.

    Kinds: jump, burst (of volume), off-quote (a trade), crossed (or locked), spread, stale, gap (in
    the sequence), band. Each compares a symbol with what it usually does; none predicts anything.
    Settings are by pattern of symbols, in sections such as [detect."ES*"] of mdtool.toml.

    Of INPUT, an alert is printed once its episode has ended, or INPUT has. Without INPUT, detect
    follows the trades of the aggregator or of a bus, and quotes of --quotes-from: it prints and
    sends to --webhook each alert when it begins, and again when it has ended. A gateway does so by
    itself.

    Example: mdtool detect sample_data/mbo.dbn.zst

    Example: mdtool simulate --schema mbp-1 --duration 5m | mdtool detect -

    Example: mdtool detect --aggregator 127.0.0.1:50051
    """
    check_mode(context, DetectConfig, not inputs)
    if inputs:
        return _filter(inputs, selected, quiet=quiet)
    from mdtool.core.lifecycle import run_service
    from mdtool.services.alerts.service import Detection

    return run_service(Detection(config, lambda alert: _print([alert])))


def _filter(paths: list[str], selected: FilterOptions, *, quiet: bool) -> int:
    from mdtool.engine.detect import DetectStream
    from mdtool.services.alerts.rules import load_rules

    stream = DetectStream(load_rules())
    with (
        selected.open(paths) as source,
        Progress("records", source.size_bytes, quiet) as progress,
    ):
        try:
            for batch in source:
                _print(stream.update(batch))
                progress.show(stream.records, source.bytes_read)
        finally:  # what is open where an input breaks off was found
            _print(stream.finish())
        if not stream.records:
            raise InputError(f"{source.name}: has no trades, quotes or bars to judge")
    return EXIT_OK


def _print(alerts: Iterable[Alert]) -> None:
    for alert in alerts:
        print(json.dumps(alert.as_dict()), flush=True)
