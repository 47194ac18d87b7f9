"""Settings of the receiver service, `[book]`."""

from __future__ import annotations

from dataclasses import dataclass

from mdtool.adapters.identity.config import auth_mode
from mdtool.core.config import Peer, setting


@dataclass(frozen=True, slots=True)
class ReceiverConfig:
    """Where the receiver listens, which sender it reads from, and the limits of its readers."""

    host: str = setting("127.0.0.1", "Address to listen on.", is_common=True)
    auth: str | None = auth_mode()
    port: int = setting(8082, "HTTP port, 0 for any free one.", low=0, high=65535, is_common=True)
    sender: str = setting(
        "127.0.0.1:9090",
        "HOST:PORT of a sender's DBN stream.",
        peer=Peer("replay-dbn", "data_port"),
        is_common=True,
    )
    history_records: int = setting(
        524_288,
        "Records kept for late or slow readers of /order-book.",
        low=131_072,
    )
    patience_ms: int = setting(
        2_000,
        "How long a reader of /order-book that stopped reading blocks processing; then "
        "it misses records, and receives their count.",
        low=0,
    )
    max_readers: int = setting(100, "Concurrent readers of /order-book.", low=1)
