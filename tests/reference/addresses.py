"""Addresses of servers that go away and come back."""

from __future__ import annotations

import os
import weakref

from mdtool.core.addresses import format_address
from mdtool.services.supervisor.ports import reserve_port


def held_address(server: object) -> str:
    """Return an address of this machine that nobody else is given as long as `server` is there."""
    held = reserve_port("127.0.0.1")
    address = format_address(*held.getsockname())
    weakref.finalize(server, os.close, held.detach())
    return address
