"""Network addresses as text, `HOST:PORT`, and the errors of those that cannot be listened on."""

from __future__ import annotations

import errno
import os
from ipaddress import ip_address
from typing import Final

from mdtool.core.errors import StartupError, UsageError

ALL: Final = "::"
ALL_IPV4: Final = "0.0.0.0"  # noqa: S104 - what a user may give
_DIALLED: Final = {"": "127.0.0.1", ALL_IPV4: "127.0.0.1", ALL: "::1"}


def listed(text: str) -> list[str]:
    """Return the parts of a list of addresses or URLs, which commas separate."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_addresses(text: str) -> list[str]:
    """Return the addresses of a list.

    Raises
    ------
    UsageError
        As `parse_address`.
    """
    addresses = listed(text)
    for address in addresses:
        parse_address(address)
    return addresses


def parse_address(text: str) -> tuple[str, int]:
    """Return the host and the port of `HOST:PORT`.

    Raises
    ------
    UsageError
        When either is missing or the port is not valid.
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
    """Return the text that `parse_address` parses to `host` and `port`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def dialled(host: str) -> str:
    """Return the host by which clients on this machine reach what listens on `host`."""
    return _DIALLED.get(host, host)


def dial_address(host: str, port: int) -> str:
    """Return the address at which clients on this machine reach a `host` and `port`."""
    return format_address(dialled(host), port)


def is_ip_address(host: str) -> bool:
    """Return whether a host is an address, not a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine by its own name, `localhost`, or a loopback address."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def cannot_listen(
    error: OSError | UnicodeError, host: str, port: int, option: str = "--port"
) -> StartupError:
    """Return the error of a failed bind; `option` is the one that selects another port.

    Under `serve all` it is the option of the service that works, `--gateway-port`.
    Python raises a UnicodeError for a host that is not a valid name: one with an empty label.
    """
    if isinstance(error, UnicodeError):
        return StartupError(f"cannot listen on port {port} of {host}: not a valid host name")
    if error.errno == errno.EADDRINUSE:
        from mdtool.core.logs import SERVICE, SUPERVISED  # which is above this module

        service = SERVICE.get() or os.environ.get(SUPERVISED)
        if service and option == "--port":
            option = f"--{service}{option[1:]}"
        return StartupError(
            f"port {port} on {host} is in use; stop what listens there, or choose another with "
            f"{option}"
        )
    return StartupError(f"cannot listen on port {port} of {host}: {error.strerror or error}")
