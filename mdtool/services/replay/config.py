"""Settings of the sender service, `[replay-dbn]`."""

from __future__ import annotations

from dataclasses import dataclass

from mdtool.core.config import setting


@dataclass(frozen=True, slots=True)
class SenderConfig:
    """Where the sender listens, and the limits of its receivers."""

    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(8081, "Port of its HTTP, 0 for any free one.", low=0, high=65535)
    data_port: int = setting(
        9090, "Port on which it streams DBN, 0 for any free one.", low=0, high=65535
    )
    max_receivers: int = setting(
        100, "Receivers connected at once, of some megabytes each; more are rejected.", low=1
    )
    greeting_ms: int = setting(
        200, "How long it waits for a receiver's request; without one it sends all.", low=1
    )
    backlog_bytes: int = setting(
        33_554_432,
        "How much of the latest records is kept; a receiver that joined live and is further "
        "behind gets a snapshot instead of the records.",
        low=16_777_216,
    )
