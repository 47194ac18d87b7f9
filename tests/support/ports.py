"""Ports that the system gives to nobody else while those whose they are do not listen."""

from __future__ import annotations

import weakref

from mdtool.core.tcp import reserve_port


def port_for(owner: object) -> int:
    """Return a port that is kept free for `owner`, which may listen there or not, until its end."""
    held = reserve_port("127.0.0.1")
    weakref.finalize(owner, held.close)
    return held.getsockname()[1]
