"""Network addresses as text, `HOST:PORT`, and what it means when one cannot be listened on."""

from __future__ import annotations

import errno

from mdtool.core.errors import StartupError, UsageError


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


def cannot_listen(
    error: OSError | UnicodeError, host: str, port: int, option: str = "--port"
) -> StartupError:
    """Return what a bind that failed means; `option` is the one that chooses another port.

    A UnicodeError is Python's for a host that can be no name, such as one with an empty label.
    """
    if isinstance(error, UnicodeError):
        return StartupError(f"cannot listen on port {port} of {host}: no host name")
    if error.errno == errno.EADDRINUSE:
        return StartupError(
            f"port {port} on {host} is in use; stop what listens there, or choose another with "
            f"{option}"
        )
    return StartupError(f"cannot listen on port {port} of {host}: {error}")
