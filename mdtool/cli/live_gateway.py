"""`mdtool live-gateway`: DBN files served by the vendor's live protocol."""

from __future__ import annotations

from typing import Annotated

import typer

from mdtool.cli.filter_options import RangeOptions, with_range
from mdtool.cli.options import with_settings
from mdtool.services.live_gateway.config import LiveGatewayConfig

app = typer.Typer(add_completion=False)


@app.command()
@with_settings(LiveGatewayConfig, "live-gateway")
@with_range
def live_gateway(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT", help="DBN files, folders or zips of them; or - for stdin, as it comes."
        ),
    ],
    selected: RangeOptions,
    config: LiveGatewayConfig,
    begin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="Begin playback at a time; what is before can be replayed, and is in snapshots.",
        ),
    ] = None,
) -> int:
    """Serve DBN files by the vendor's live protocol, so that official live clients connect.

    Playback begins when the first session starts. Every session gets what it subscribes to, as fast
    as it reads. Any key is accepted unless --keys is given.

    Example: mdtool live-gateway sample_data/trades.dbn.zst --speed 10

    Example: mdtool live-gateway sample_data/mbo.dbn.zst --from 2025-01-02T14:31 --rebase now

    Example: mdtool simulate --start now --speed 1 | mdtool live-gateway -
    """
    from mdtool.core.lifecycle import run_service
    from mdtool.core.units import parse_option, parse_time
    from mdtool.services.live_gateway.server import LiveGateway

    from_ns = None if begin is None else parse_option("--from", parse_time, begin)
    return run_service(LiveGateway(config, tuple(inputs), selected.selection(), from_ns))
