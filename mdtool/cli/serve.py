"""`mdtool serve`: the services under one supervisor, and a check of running ones."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdtool.adapters.identity.config import TOKEN_VARIABLE, client_token
from mdtool.cli.completion import one_of
from mdtool.cli.options import with_settings
from mdtool.core.config import did_you_mean
from mdtool.core.errors import UsageError
from mdtool.core.tls import load_tls
from mdtool.services.supervisor.config import ServeConfig

if TYPE_CHECKING:
    from mdtool.core.logs import LogConfig
    from mdtool.services.supervisor.check import Hop
    from mdtool.services.supervisor.supervisor import Addresses

logger = logging.getLogger(__name__)

app = typer.Typer(add_completion=False)

_WHAT = ("all", "together")
_PROTOCOLS = {
    "serve-tcp": "Tick frames over TCP",
    "aggregate": "gRPC: MarketDataService, health, reflection",
    "gateway": "pages, REST, WebSocket, GraphQL, STOMP",
    "vwap": "JSON lines over TCP: mdtool watch HOST:PORT",
    "book http": "POST /start-processing, /order-book, /status",
    "replay-dbn http": "POST /start-streaming, /status",
    "live-gateway live": "Databento's live protocol, for its live clients",
    "live-gateway control": "HTTP: /status, /pause, /seek, /faults",
    "replay-dbn dbn": "DBN over TCP: nc HOST PORT | mdtool book -",
}


@app.command()
@with_settings(ServeConfig, "serve")
def serve(
    context: typer.Context,
    config: ServeConfig,
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="all|together",
            autocompletion=one_of(_WHAT),
            help="All services, or those of --only, under a supervisor; or in this very process, "
            "for a supervisor of your own.",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Send probes through running services and time them.")
    ] = False,
    ready: Annotated[
        bool,
        typer.Option(
            "--ready", help="Exit with 0 if running services can be used, else say why not."
        ),
    ] = False,
    digest: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="With --check, compare the trades that the gateway serves with those of a file, "
            "instead of sending probes.",
        ),
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help=f"With --check, file with the token for the services; by default that of "
            f"{TOKEN_VARIABLE}.",
        ),
    ] = None,
    ticks: Annotated[int, typer.Option(min=1, help="How many probes a check sends.")] = 20,
    as_json: Annotated[
        bool, typer.Option("-J", "--json", help="Addresses, or a check's times, as JSON lines.")
    ] = False,
) -> int | None:
    """Run serve-tcp, aggregate, vwap and gateway in one process, and restart it when it dies.

    Ctrl-C stops them in order, so that nothing accepted is lost. Trades and state are stored, and
    restored at the next start. Each service has settings of its own: see `mdtool gateway --help`
    and so on. With --book, replay-dbn and book run too, and the gateway's page /book starts them.

    Example: mdtool serve all --simulate

    Example: mdtool serve all --replay sample_data/trades.dbn.zst --speed 10

    Example: mdtool serve all --book sample_data/mbo.dbn.zst --only gateway,book,replay-dbn

    Example: mdtool serve all --ingest kraken --symbols BTC/USD

    Example: mdtool serve all --live sample_data/mbo.dbn.zst

    Example: mdtool serve all --processes

    Example: mdtool serve all --bus kafka://127.0.0.1:9092 --scale aggregate=3

    Example: mdtool serve --check

    Example: mdtool serve --check --digest sample_data/trades.dbn.zst

    Example: mdtool serve --ready --only gateway
    """
    if digest is not None:
        if not check:
            raise UsageError("--digest: compares running services; give --check too")
        _check_digest(config, digest, token_file)
        return None
    if check:
        _check(config, ticks, as_json, token_file)
        return None
    if ready:
        _check_ready(config)
        return None
    if what == "all":
        return _run(config, context, as_json)
    if what == "together":
        return _run_together(config)
    if what is not None:
        raise UsageError(f"serve {what}: no such services{did_you_mean(what, _WHAT)}")
    raise UsageError("serve what? say `serve all`, `serve all --only ...`, or `serve --check`")


def _run(config: ServeConfig, context: typer.Context, as_json: bool) -> int:
    from mdtool.core.lifecycle import run_service
    from mdtool.services.supervisor.output import styles
    from mdtool.services.supervisor.programs import PYTHON, programs
    from mdtool.services.supervisor.supervisor import Supervisor
    from mdtool.services.supervisor.topology import prepared, stored_in

    log: LogConfig = context.obj
    options = [f"--log-format={log.format}", f"--log-level={log.level}"]
    options += ["--debug"] if context.parent and context.parent.params["debug"] else []
    show = _print_addresses_as_json if as_json else _print_addresses

    def report(addresses: Addresses) -> None:
        logger.info("serve: ready; %s", stored_in(topology))
        show(addresses)

    with prepared(config) as topology:
        running = programs(topology, [*PYTHON, *options])
        supervisor = Supervisor(running, styles(running, log.format), report)
        return run_service(supervisor, logs_ready=False)


def _run_together(config: ServeConfig) -> int:
    from mdtool.core.lifecycle import run_service
    from mdtool.services.supervisor.one_process import OneProcess
    from mdtool.services.supervisor.services import services
    from mdtool.services.supervisor.topology import prepared

    with prepared(config) as topology:
        return run_service(OneProcess(services(topology)), logs_ready=False)


def _check(config: ServeConfig, ticks: int, as_json: bool, token_file: str | None) -> None:
    import asyncio

    from mdtool.services.supervisor.check import Route, check
    from mdtool.services.supervisor.topology import chosen

    if config.bus:
        raise UsageError("--check: requires the gRPC service that --bus replaces; leave one out")
    where = _addresses(config)
    names = chosen(config)
    gateway = where["gateway"] if "gateway" in names else None
    vwap = where["vwap"] if "vwap" in names else None
    route = Route(where["serve-tcp"], where["aggregate"], gateway, vwap)
    hops = asyncio.run(check(route, ticks, client_token(token_file)))
    if as_json:
        for hop in hops:
            times = {"median_us": hop.median_ns / 1e3, "slowest_us": hop.slowest_ns / 1e3}
            print(json.dumps({"hop": hop.name, "ticks": ticks, **times}))
    else:
        _print_hops(hops)


def _check_digest(config: ServeConfig, path: str, token_file: str | None) -> None:
    import asyncio

    from mdtool.services.digest import check_gateway, digest_trades

    expected = digest_trades([path])
    address = _addresses(config)["gateway"]
    same = asyncio.run(check_gateway(address, expected, client_token(token_file)))
    print(f"{address} serves the {same.rows:,} trades of {path}: {same.digest}")


def _check_ready(config: ServeConfig) -> None:
    import asyncio

    from mdtool.services.supervisor.ready import ready
    from mdtool.services.supervisor.topology import chosen

    names = chosen(config)
    asyncio.run(ready({name: at for name, at in _addresses(config).items() if name in names}))


def _addresses(config: ServeConfig) -> dict[str, str]:
    """Return where each service is reached by its settings."""
    from mdtool.core.addresses import dial_address
    from mdtool.services.supervisor.topology import endpoints

    return {name: dial_address(*endpoint) for name, endpoint in endpoints(config).items()}


def _print_hops(hops: list[Hop]) -> None:
    table = _table("hop", "median", "slowest")
    for hop in hops:
        table.add_row(hop.name, f"{hop.median_ns / 1e6:,.2f} ms", f"{hop.slowest_ns / 1e6:,.2f} ms")
    _print(table)


def _print_addresses(addresses: Addresses) -> None:
    table = _table("service", "address", "speaks")
    for name, by_protocol in addresses.items():
        for protocol, address in by_protocol.items():
            where = f"{_scheme(name)}://{address}" if protocol == "http" else address
            speaks = _PROTOCOLS.get(name) or _PROTOCOLS.get(f"{name} {protocol}", protocol)
            table.add_row(name, where, speaks)
    _print(table)
    for line in _next_steps(addresses):
        print(line)
    sys.stdout.flush()


def _next_steps(addresses: Addresses) -> Iterator[str]:
    """Yield what to open and try, of those services that run."""
    at = {name: next(iter(by_protocol.values())) for name, by_protocol in addresses.items()}
    yield ""
    if gateway := at.get("gateway"):
        book = ", /book (the order book)" if "book" in at else ""
        url = f"{_scheme('gateway')}://{gateway}"
        yield f"Open  {url} (the market){book}, /docs (the API), /demo/stomp, /graphiql"
        yield f"Try   curl {url}/api/v2/aggregates"
    if vwap := at.get("vwap"):
        yield f"Try   mdtool watch {vwap}"
    if ingest := at.get("serve-tcp"):
        yield f"Try   mdtool send --simulate --rate 100 {ingest}"


def _scheme(service: str) -> str:
    return "https" if load_tls(service).cert else "http"


def _print_addresses_as_json(addresses: Addresses) -> None:
    for name, by_protocol in addresses.items():
        print(json.dumps({"service": name, "addresses": dict(by_protocol)}), flush=True)


def _table(*columns: str) -> Any:
    from rich.table import Table

    return Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))


def _print(table: Any) -> None:
    from rich.console import Console

    # Piped, a row stays a line however long it is.
    Console(soft_wrap=not sys.stdout.isatty()).print(table)
    sys.stdout.flush()
