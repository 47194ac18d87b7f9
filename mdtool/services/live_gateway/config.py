"""Settings of the live gateway, `[live-gateway]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mdtool.adapters.identity.config import auth_mode
from mdtool.core.config import setting
from mdtool.services.metrics import metrics_port

CLOSE: Final = "close"
HOLD: Final = "hold"
LOOP: Final = "loop"
FILES_SPEED: Final = 1.0
STDIN_SPEED: Final = 0.0
"""The speeds at which input is played by default."""
_LAST_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class LiveGatewayConfig:
    """Where the live gateway listens, how it plays its input, and its limits."""

    host: str = setting("127.0.0.1", "Address to listen on.", is_common=True)
    auth: str | None = auth_mode()
    port: int = setting(13000, "TCP port, 0 for any free one.", low=0, high=65535, is_common=True)
    speed: float | None = setting(
        None,
        "Playback speed: 1 is real time, 10 ten times that, 0 as fast as clients read; by default "
        "1 for files, and 0 for stdin, which is live as it arrives.",
        low=0,
        example=1.0,
        is_common=True,
    )
    at_end: str = setting(
        CLOSE,
        "At the end of the input: close sessions that have everything, hold them open, or loop "
        "from the start.",
        choices=(CLOSE, HOLD, LOOP),
        is_common=True,
    )
    rebase: str | None = setting(
        None,
        "now: move all times so that the record at which playback begins is now.",
        choices=("now",),
        example="now",
        is_common=True,
    )
    metrics_port: int | None = metrics_port()
    control_port: int | None = setting(
        None,
        "Port of the control API on 127.0.0.1, 0 for any free one; by default --port + 1.",
        low=0,
        high=65535,
        example=13001,
    )
    snapshots: bool = setting(
        True, "Keep order books once a session needs them, for snapshots and quotes."
    )
    bare: bool = setting(
        False, "Send every session the input's own header and records, and nothing else."
    )
    dbn_version: int = setting(3, "DBN version of sessions, 2 for older clients.", low=2, high=3)
    keys: str | None = setting(
        None,
        "File of mode 0600 with a name, a key and its roles on each line; without it any key is "
        "accepted.",
        example="keys.txt",
        is_common=True,
    )
    max_sessions: int = setting(100, "Sessions open at once; more are rejected.", low=1)
    login_s: float = setting(10.0, "How long a client may take to authenticate.", low=0.1)
    connects_per_s: int = setting(
        0, "Connections of one address a second; more are rejected. 0 for no limit.", low=0
    )
    subscriptions_per_s: int = setting(
        10, "Subscriptions of one session a second; more are delayed. 0 for no limit.", low=0
    )
    backlog_bytes: int = setting(
        33_554_432,
        "Size of the latest records kept; a session that is further behind reads the files again.",
        low=16_777_216,
    )
    faults: str = setting(
        "",
        "Faults for people who test their clients, such as `reset after=1000; stall session=2`.",
    )
    tls_cert: str | None = setting(
        None,
        "Certificate of TLS, a PEM file; official clients speak plain TCP alone.",
        example="cert.pem",
    )
    tls_key: str | None = setting(
        None, "Private key of --tls-cert; by default in the same file.", example="key.pem"
    )

    @property
    def port_of_control(self) -> int:
        """The port of the control API, 0 for any free one."""
        if self.control_port is not None:
            return self.control_port
        return self.port + 1 if 0 < self.port < _LAST_PORT else 0
