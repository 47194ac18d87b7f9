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
        example="/var/lib/mdtool",
    )
    store: str | None = setting(
        None,
        "URL of another store, such as postgresql://HOST/NAME.",
        is_common=True,
        example="postgresql://HOST/NAME",
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
        example="sample_data/trades.dbn.zst",
    )
    ingest: str | None = setting(
        None,
        "Ingest the trades of a live source, such as kraken; [ingest] has its settings.",
        is_common=True,
        example="kraken",
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
        example="sample_data/mbo.dbn.zst",
    )
    live: str | None = setting(
        None,
        "Run a live gateway on DBN files or a folder of them; it feeds no other service.",
        is_common=True,
        example="sample_data/mbo.dbn.zst",
    )
    speed: float | None = setting(
        None,
        "Replay speed: 1 is real time, 0 as fast as possible; by default 1 for "
        "--replay and --live, 0 for --book.",
        low=0,
        is_common=True,
        example=1.0,
    )
    auth: str | None = auth_mode()
    serve_tcp_host: str | None = setting(
        None, "Address that serve-tcp listens on.", example="127.0.0.1"
    )
    serve_tcp_port: int | None = setting(
        None, "Port of serve-tcp, 0 for any free one.", low=0, high=65535, example=50050
    )
    aggregate_host: str | None = setting(
        None, "Address that aggregate listens on.", example="127.0.0.1"
    )
    aggregate_port: int | None = setting(
        None, "Port of aggregate, 0 for any free one.", low=0, high=65535, example=50051
    )
    gateway_host: str | None = setting(
        None, "Address that gateway listens on.", example="127.0.0.1"
    )
    gateway_port: int | None = setting(
        None,
        "Port of gateway, 0 for any free one.",
        low=0,
        high=65535,
        is_common=True,
        example=8080,
    )
    vwap_host: str | None = setting(None, "Address that vwap listens on.", example="127.0.0.1")
    vwap_port: int | None = setting(
        None, "Port of vwap, 0 for any free one.", low=0, high=65535, example=8888
    )
    book_host: str | None = setting(None, "Address that book listens on.", example="127.0.0.1")
    book_port: int | None = setting(
        None, "Port of book, 0 for any free one.", low=0, high=65535, example=8082
    )
    replay_dbn_host: str | None = setting(
        None, "Address that replay-dbn listens on.", example="127.0.0.1"
    )
    replay_dbn_port: int | None = setting(
        None, "HTTP port of replay-dbn, 0 for any free one.", low=0, high=65535, example=8081
    )
    replay_dbn_data_port: int | None = setting(
        None,
        "Port on which replay-dbn streams, 0 for any free one.",
        low=0,
        high=65535,
        example=9090,
    )
    live_gateway_host: str | None = setting(
        None, "Address that live-gateway listens on.", example="127.0.0.1"
    )
    live_gateway_port: int | None = setting(
        None, "Port of live-gateway, 0 for any free one.", low=0, high=65535, example=13000
    )
    live_gateway_control_port: int | None = setting(
        None,
        "Port of live-gateway's control API, 0 for any free one.",
        low=0,
        high=65535,
        example=13001,
    )
