"""Settings of the sender service, `[replay-dbn]`."""

from __future__ import annotations

from dataclasses import dataclass

from mdtool.adapters.identity.config import auth_mode
from mdtool.core.config import setting


@dataclass(frozen=True, slots=True)
class SenderConfig:
    """Where the sender listens, and the limits of its receivers."""

    host: str = setting("127.0.0.1", "Address to listen on.", is_common=True)
    auth: str | None = auth_mode()
    port: int = setting(8081, "HTTP port, 0 for any free one.", low=0, high=65535, is_common=True)
    data_port: int = setting(
        9090, "Port of the DBN stream, 0 for any free one.", low=0, high=65535, is_common=True
    )
    max_receivers: int = setting(
        100, "Receivers connected at once, of some megabytes each; more are rejected.", low=1
    )
    greeting_ms: int = setting(
        200,
        "How long to wait for a receiver's request line; without one the stream begins "
        "at its start.",
        low=1,
    )
    backlog_bytes: int = setting(
        33_554_432,
        "Size of the latest records kept; a live receiver that is further behind gets a "
        "snapshot instead of the records.",
        low=16_777_216,
    )
