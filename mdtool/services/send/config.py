"""Settings of the client of an ingest server, `[send]`."""

from __future__ import annotations

from dataclasses import dataclass

from mdtool.adapters.identity.config import token_file
from mdtool.core.config import Peer, setting
from mdtool.core.units import PRICES


@dataclass(frozen=True, slots=True)
class SendConfig:
    """Where ticks go, how fast, and how hard the client tries."""

    host: str = setting(
        "127.0.0.1", "Host of the ingest server.", peer=Peer("serve-tcp"), is_common=True
    )
    port: int = setting(
        50050,
        "Port of the ingest server.",
        low=1,
        high=65535,
        peer=Peer("serve-tcp"),
        is_common=True,
    )
    rate: float = setting(
        0.0, "Ticks a second; 0 is as many as the server accepts.", low=0, is_common=True
    )
    speed: float = setting(
        0.0,
        "Replay speed: 1 is real time, 10 ten times as fast, 0 as fast as possible.",
        low=0,
        is_common=True,
    )
    prices: str = setting(
        PRICES[0],
        "Prices to send: any, also of 0 and below, for a server that accepts them.",
        choices=PRICES,
        is_common=True,
    )
    quotes_at: str = setting(
        "",
        "HOST:PORT on which to stream the quotes of INPUT, or of --simulate, for "
        "mdtool gateway --quotes-from.",
    )
    plain: bool = setting(
        False, "Send no Hello, for servers that do not know it; nothing is resent."
    )
    stream_id: str | None = setting(
        None,
        "Name of the stream; the same input sent again under this name resumes where it stopped.",
        is_common=True,
        example="desk-1",
    )
    token_file: str | None = token_file()
    backlog_bytes: int = setting(
        16 << 20,
        "Uncommitted bytes kept for a resend; beyond it the source is blocked.",
        low=1 << 16,
    )
    connect_timeout_s: float = setting(2.0, "How long to try to connect to the server.", low=0.1)
    reconnect_timeout_s: float = setting(60.0, "How long to try to reconnect.", low=0)
    max_losses: int = setting(
        10, "Connections lost in a row without a commit in between, after which to give up.", low=1
    )
