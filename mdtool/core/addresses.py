"""Network addresses as text: `HOST:PORT`, with brackets around an IPv6 host."""

from __future__ import annotations

from mdtool.core.errors import UsageError


def parse_address(text: str) -> tuple[str, int]:
    """Return the host and the port of `HOST:PORT`.

    Raises
    ------
    UsageError
        When either is missing or the port is none.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise UsageError(f"{text!r} is not an address: give HOST:PORT, such as 127.0.0.1:50050")
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """Return what `parse_address` reads back as `host` and `port`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
