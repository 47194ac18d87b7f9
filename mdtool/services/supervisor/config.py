"""Settings of the supervisor, `[serve]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mdtool.adapters.identity.config import auth_mode
from mdtool.core.config import setting

_SERVICES: Final = (
    "serve-tcp",
    "aggregate",
    "vwap",
    "gateway",
    "book",
    "replay-dbn",
    "live-gateway",
    "store",
)


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """Which services run, their addresses, their source, and their store.

    A host or a port of None means the service's own setting.
    """

    only: str = setting(
        "",
        "Services to run, separated by commas; by default all.",
        offered=_SERVICES,
        is_common=True,
    )
    data_dir: str | None = setting(
        None,
        "Folder of the store; by default mdtool's own below the user's data, and none with "
        "--simulate or --replay.",
        is_common=True,
    )
    store: str | None = setting(
        None, "URL of another store, such as postgresql://HOST/NAME.", is_common=True
    )
    memory: bool = setting(
        False, "Store nothing: state and trades end with the services.", is_common=True
    )
    bus: str = setting(
        "",
        "Exchange ticks and state over kafka://HOST:PORT, also with other machines.",
    )
    processes: bool = setting(
        False,
        "Run each service in a process of its own, as --bus and --scale do.",
        is_common=True,
    )
    scale: str = setting("", "With --bus, how many processes of a service to run: aggregate=3.")
    simulate: bool = setting(False, "Ingest the trades of a simulated exchange.", is_common=True)
    rate: float = setting(1_000.0, "Simulated trades a second.", low=0.001, is_common=True)
    replay: str | None = setting(
        None,
        "Ingest the trades of a DBN file, once: what the store has of it is left out.",
        is_common=True,
    )
    ingest: str | None = setting(
        None,
        "Ingest the trades of a live source, such as kraken; [ingest] has its settings.",
        is_common=True,
    )
    symbols: str = setting(
        "", "Symbols of --ingest, separated by commas: BTC/USD,ETH/USD.", is_common=True
    )
    again: bool = setting(
        False, "Ingest the trades of --replay again, whatever the store has.", is_common=True
    )
    book: str | None = setting(
        None,
        "Run the sender and the receiver of an order book, on a DBN file.",
        is_common=True,
    )
    live: str | None = setting(
        None,
        "Run a live gateway on DBN files or a folder of them; it feeds no other service.",
        is_common=True,
    )
    speed: float | None = setting(
        None,
        "Replay speed: 1 is real time, 0 as fast as possible; by default 1 for "
        "--replay and --live, 0 for --book.",
        low=0,
        is_common=True,
    )
    auth: str | None = auth_mode()
    serve_tcp_host: str | None = setting(None, "Address that serve-tcp listens on.")
    serve_tcp_port: int | None = setting(
        None, "Port of serve-tcp, 0 for any free one.", low=0, high=65535
    )
    aggregate_host: str | None = setting(None, "Address that aggregate listens on.")
    aggregate_port: int | None = setting(
        None, "Port of aggregate, 0 for any free one.", low=0, high=65535
    )
    gateway_host: str | None = setting(None, "Address that gateway listens on.")
    gateway_port: int | None = setting(
        None,
        "Port of gateway, 0 for any free one.",
        low=0,
        high=65535,
        is_common=True,
    )
    vwap_host: str | None = setting(None, "Address that vwap listens on.")
    vwap_port: int | None = setting(None, "Port of vwap, 0 for any free one.", low=0, high=65535)
    book_host: str | None = setting(None, "Address that book listens on.")
    book_port: int | None = setting(None, "Port of book, 0 for any free one.", low=0, high=65535)
    replay_dbn_host: str | None = setting(None, "Address that replay-dbn listens on.")
    replay_dbn_port: int | None = setting(
        None, "HTTP port of replay-dbn, 0 for any free one.", low=0, high=65535
    )
    replay_dbn_data_port: int | None = setting(
        None, "Port on which replay-dbn streams, 0 for any free one.", low=0, high=65535
    )
    live_gateway_host: str | None = setting(None, "Address that live-gateway listens on.")
    live_gateway_port: int | None = setting(
        None, "Port of live-gateway, 0 for any free one.", low=0, high=65535
    )
