"""`mdtool store check`: compares the totals, sessions and bars of a store with its trades."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from mdtool.cli.options import with_settings
from mdtool.cli.progress import Progress
from mdtool.cli.store.target import url_of
from mdtool.core.buckets import parse_sessions
from mdtool.core.config import load
from mdtool.core.errors import CheckError
from mdtool.core.units import counted
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.store.config import StoreConfig

log = logging.getLogger(__name__)


@with_settings(StoreConfig, "store", without=("keep", "metrics_port"))
def check(
    config: StoreConfig,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Correct trade_count and last_trade_at, in one transaction."),
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")] = False,
) -> None:
    """Compare a store's counts with its trades: a line a difference, and exit 1 if there are any.

    It compares trade_count and last_trade_at of each symbol with its trades, counts trades that
    have the stream and the sequence of another one, and, unless an aggregation service uses the
    store, compares the count and volume of its session and bars too. Sessions and bars depend on
    the order in which trades arrived, and are not repaired.

    Example: mdtool store check

    Example: mdtool store check --store postgresql://localhost/trades --repair
    """
    from mdtool.adapters.stores import open_history, open_store
    from mdtool.adapters.stores.errors import StoreClaimedError
    from mdtool.services.store.check import MarketCheck, describe, repeated_places

    url = url_of(config)
    with open_history(url) as history:
        count = sum(totals.trade_count for totals in history.symbols())
    with open_store(url) as store, Progress("trades", count, quiet) as progress:
        wrong = store.repair() if repair else store.recount()
        lines = [line for each in wrong for line in describe(each)]
        repaired = len(lines) if repair else 0
        lines += repeated_places(store, [] if repair else wrong)
        try:
            store.claim()
        except StoreClaimedError as error:
            log.warning("sessions and bars are not compared: %s", error)
        else:
            sessions = parse_sessions(load(AggregatorConfig, "aggregate", {}).session)
            market = MarketCheck(store, lambda read: progress.show(read, read), sessions)
            lines += market.differences()
        progress.clear()
    for line in lines:
        typer.echo(line)
    typer.echo(
        f"{store.address}: {counted(count, 'trade')}, differences: {len(lines):,}, "
        f"repaired: {repaired:,}"
    )
    if len(lines) > repaired:
        hint = "" if repair else "; see --repair"
        raise CheckError(f"{store.address}: differences: {len(lines) - repaired:,}{hint}")
