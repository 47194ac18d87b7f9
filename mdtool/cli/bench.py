"""`mdtool bench`: measures parts of mdtool, each beside a baseline of the same run."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from mdtool.cli.completion import one_of
from mdtool.cli.progress import StatusLine
from mdtool.core.config import did_you_mean
from mdtool.core.errors import CheckError, UsageError

if TYPE_CHECKING:
    from mdtool.bench.figures import Figure

app = typer.Typer(add_completion=False)


class Bench(NamedTuple):
    """A bench: what it measures, and its function as `MODULE:NAME` below mdtool.bench."""

    title: str
    function: str


BENCHES: Final = {
    "serialization": Bench(
        "decoding Tick frames, against protobuf's own decoder", "serialization:measure"
    ),
    "ingest": Bench(
        "TCP into bars, in both forms of `serve all`, against a server that discards the ticks",
        "ingest:measure",
    ),
    "durable": Bench(
        "TCP through gRPC into a SQLite store, in order, overlapping and long, against executemany",
        "durable:measure",
    ),
    "restart": Bench(
        "from the aggregator's start until it serves 10 million stored trades", "restart:measure"
    ),
    "latency": Bench("TCP in to WebSocket out, through three processes", "latency:measure"),
    "trickle": Bench(
        "CPU time, latency and memory of the whole stack with live ticks, in one process and in "
        "one for each service",
        "trickle:measure",
    ),
    "rest": Bench(
        "the gateway's REST, against a bare aiohttp handler, and of two workers against one",
        "requests:measure_rest",
    ),
    "history": Bench(
        "a page of trades over HTTP from 10 million stored, against a blocking handler",
        "history:measure",
    ),
    "graphql": Bench(
        "the gateway's GraphQL, against its REST for the same symbol", "requests:measure_graphql"
    ),
    "fanout": Bench(
        "STOMP messages to 2,000 and 10,000 clients, against bare aiohttp sockets", "fanout:measure"
    ),
    "auth": Bench(
        "ingest over TLS, REST with a token, ten permission classes, 100,000 API keys",
        "auth:measure",
    ),
    "overload": Bench(
        "2,000 STOMP clients at 0.9 to 10 times the updates that the gateway can write",
        "overload:measure",
    ),
    "outage": Bench(
        "what the gateway answers while the aggregator is killed and comes back", "outage:measure"
    ),
    "chaos": Bench(
        "what a store holds after its services were killed at random under load", "chaos:measure"
    ),
    "soak": Bench(
        "what each service grows by under load with kills, slow clients and new certificates",
        "soak:measure",
    ),
    "memory": Bench(
        "what replaying a 4-million-record file to CSV takes at its peak", "memory:measure"
    ),
    "start": Bench(
        "time of commands on small and long files, and of a first use; memory of services at rest",
        "start:measure",
    ),
    "kernels": Bench(
        "kernels of books, bars and VWAPs compiled for any CPU, against those for this machine's",
        "kernels:measure",
    ),
    "book": Bench(
        "rebuilding L3 order books from orders, against the same in plain Python", "book:measure"
    ),
    "replay": Bench(
        "replaying a long file, against a zstd pass and databento_dbn's decoder alone",
        "replay:measure",
    ),
    "text": Bench(
        "DBN to CSV, JSON and Parquet, and merges, against databento_dbn's Transcoder",
        "text:measure",
    ),
    "vwap": Bench(
        "rolling VWAPs of a long file of trades, in windows of 10 and of 10 million", "vwap:measure"
    ),
    "detect": Bench(
        "detectors: precision and recall on simulated faults, false alarms an hour on real files, "
        "records a second against the order books alone",
        "detect:measure",
    ),
    "book_services": Bench(
        "replay over TCP into books, and books as JSON lines over HTTP", "book_services:measure"
    ),
    "live": Bench(
        "the live gateway: records a second to one client, against a plain socket loop, and "
        "lateness to 100 sessions; recorded messages of a live source into DBN",
        "live:measure",
    ),
    "dashboard": Bench(
        "the dashboard in a browser at 500 trades a second: slow frames, memory, the first price",
        "dashboard:measure",
    ),
    "kafka": Bench(
        "TCP through Kafka into committed aggregates, on the broker that MDTOOL_KAFKA names",
        "kafka:measure",
    ),
    "mongodb": Bench(
        "TCP into a store on the server that MDTOOL_MONGODB names, against pymongo's insert_many",
        "mongodb:measure",
    ),
}
_LONG: Final = frozenset({"soak"})
"""The benches that `all` leaves out."""
_NEEDS: Final[Mapping[str, tuple[str, Callable[[], object]]]] = {
    "kafka": ("MDTOOL_KAFKA is not set", lambda: os.environ.get("MDTOOL_KAFKA")),
    "mongodb": ("MDTOOL_MONGODB is not set", lambda: os.environ.get("MDTOOL_MONGODB")),
    "dashboard": ("there is no chromium on PATH", lambda: shutil.which("chromium")),
}
"""What a bench requires, and whether it is there; else `all` leaves it out."""
_SEEDED: Final = frozenset({"chaos", "soak"})
"""The benches that take a seed."""
_SEEDS: Final = 1_000_000


@app.command()
def bench(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help=f"{', '.join(BENCHES)}, or all.",
            autocompletion=one_of([*BENCHES, "all"]),
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("-J", "--json", help="One JSON object a line, one line a figure.")
    ] = False,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIGURE=VALUE",
            help="Exit 1 if a figure is worse than VALUE: below it for a rate, above it for a "
            "time or a size. FIGURE:ratio is relative to the baseline. Repeatable.",
        ),
    ] = None,
    kills: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="How often `bench chaos` kills a service."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Seed of `bench chaos` and `bench soak`: the same seed kills the same services in "
            "the same order.",
            show_default="random, and printed",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            min=0.1,
            help="How long `bench soak` lasts, and how long `bench dashboard` looks at a page.",
            show_default="30, and 2",
        ),
    ] = None,
) -> None:
    """Measure parts of mdtool, each beside a baseline in the same run.

    Absolute figures drift from machine to machine and from minute to minute; ratios hold. Values
    are medians of rounds. Where two programs take turns, the ratio is the median of the ratios of
    the pairs of rounds.

    Example: mdtool bench serialization --fail-under decode:ratio=40

    Example: mdtool bench chaos --kills 20 --fail-under chaos_lost=0

    Example: mdtool bench chaos --seed 7

    Example: mdtool bench soak --minutes 30

    Example: mdtool bench dashboard --minutes 10 --fail-under dashboard_heap_growth=1
    """
    chosen = _all() if names == ["all"] else names
    for name in chosen:
        if name not in BENCHES:
            raise UsageError(f"bench {name}: no such bench{did_you_mean(name, [*BENCHES, 'all'])}")
    for option, given, wants in (
        ("--kills", kills, {"chaos"}),
        ("--minutes", minutes, {"dashboard", "soak"}),
        ("--seed", seed, _SEEDED),
    ):
        if given is not None and not wants & set(chosen):
            raise UsageError(f"{option}: is for `bench {' and '.join(sorted(wants))}` only")
    if _SEEDED & set(chosen):
        seed = random.randrange(_SEEDS) if seed is None else seed  # noqa: S311 - no secret
        typer.echo(f"{', '.join(sorted(_SEEDED & set(chosen)))}: --seed {seed}", err=True)
    limits = [_parse_limit(text) for text in fail_under or []]

    figures: list[Figure] = []
    for name in chosen:
        if sys.stderr.isatty():
            typer.echo(f"measuring {name}: {BENCHES[name].title}...", err=True)
        with StatusLine() as line:
            measured = _measure(name, kills=kills, minutes=minutes, seed=seed, show=line.show)
        figures += measured
        if as_json:
            for figure in measured:
                print(json.dumps({"bench": name, **figure.as_dict()}), flush=True)
        else:
            _print_table(name, measured)
    _enforce(limits, figures)


def _all() -> list[str]:
    missing = {name: why for name, (why, is_there) in _NEEDS.items() if not is_there()}
    for name, why in missing.items():
        typer.echo(f"{name} is left out: {why}", err=True)
    return [name for name in BENCHES if name not in missing and name not in _LONG]


def _measure(name: str, **offered: Any) -> list[Figure]:
    """Run a bench, with those options that it has."""
    module, _, function = BENCHES[name].function.partition(":")
    measure = getattr(importlib.import_module(f"mdtool.bench.{module}"), function)
    accepted = inspect.signature(measure).parameters.keys()
    options = {
        key: value for key, value in offered.items() if key in accepted and value is not None
    }
    if not inspect.iscoroutinefunction(measure):
        return list(measure(**options))
    import asyncio

    return list(asyncio.run(measure(**options)))


def _print_table(name: str, figures: Sequence[Figure]) -> None:
    """Print a row for each figure, and below it what it was compared with."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("figure", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("value", "baseline", "ratio"):
        table.add_column(column, justify="right", no_wrap=True)
    table.columns[0].no_wrap = True
    for figure in figures:
        baseline = figure.baseline_value
        table.add_row(
            figure.name,
            f"{_readable(figure.value)} {figure.unit}",
            "" if baseline is None else f"{_readable(baseline)} {figure.unit}",
            "" if figure.ratio is None else f"{figure.ratio:,.2f} x",
        )
    console = Console(soft_wrap=not sys.stdout.isatty(), highlight=False)
    console.print(Text(f"{name}: {BENCHES[name].title}", "bold"))
    console.print(table)
    compared: dict[str, list[str]] = {}
    for figure in figures:
        if figure.baseline:
            compared.setdefault(figure.baseline, []).append(figure.name)
    for peer, names in compared.items():
        console.print(Text(f"{', '.join(names)}: against {peer}", "dim"))


def _readable(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:,.3g}"


def _parse_limit(text: str) -> tuple[str, float]:
    figure, _, value = text.partition("=")
    try:
        return figure, float(value)
    except ValueError as error:
        raise UsageError(f"--fail-under {text}: give FIGURE=VALUE") from error


def _enforce(limits: Sequence[tuple[str, float]], figures: Sequence[Figure]) -> None:
    by_name = {figure.name: figure for figure in figures}
    for wanted, limit in limits:
        name, _, of = wanted.partition(":")
        figure = by_name.get(name)
        if figure is None or of not in {"", "ratio"} or (of and figure.ratio is None):
            raise UsageError(f"--fail-under {wanted}: measured were {', '.join(by_name)}")
        value = figure.ratio if of and figure.ratio is not None else figure.value
        lower_is_better = figure.better == "lower" and not of
        if value > limit if lower_is_better else value < limit:
            side = "over" if lower_is_better else "under"
            raise CheckError(f"{wanted} came out as {value:,.4g}, {side} {limit:,.4g}")
