"""Settings of the client of an ingest server, `[send]`."""

from __future__ import annotations

from dataclasses import dataclass

from mdtool.core.config import setting


@dataclass(frozen=True, slots=True)
class SendConfig:
    """Where ticks go, how fast, and how hard the client tries."""

    host: str = setting("127.0.0.1", "Host of the ingest server.")
    port: int = setting(50050, "Port of the ingest server.", low=1, high=65535)
    rate: float = setting(0.0, "Ticks a second, 0 for as many as the server takes.", low=0)
    speed: float = setting(
        0.0, "Pace by the records' own times: 1 is real time, 10 ten times, 0 flat out.", low=0
    )
    plain: bool = setting(False, "Send no Hello, for servers that do not know it; no resends.")
    stream_id: str | None = setting(
        None, "Name of the stream: sent again under it, the same input goes on where it stopped."
    )
    backlog_bytes: int = setting(
        16 << 20, "Bytes kept for a resend before the source is held up.", low=1 << 16
    )
    connect_timeout_s: float = setting(2.0, "Seconds to try to reach the server.", low=0.1)
    reconnect_timeout_s: float = setting(60.0, "Seconds to try after a loss.", low=0)
    max_losses: int = setting(
        10, "Connections lost in a row, nothing committed between, before it gives up.", low=1
    )
