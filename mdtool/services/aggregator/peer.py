"""The settings by which other services reach the aggregator."""

from __future__ import annotations

from typing import Any

from mdtool.core.config import Peer, setting


def aggregator_address() -> Any:
    """Return the setting of its address."""
    return setting(
        "127.0.0.1:50051",
        "HOST:PORT of the aggregator.",
        peer=Peer("aggregate"),
        is_common=True,
    )


def aggregator_socket() -> Any:
    """Return the setting of its Unix socket."""
    return setting(
        "", "The aggregator's Unix socket, if it has one, to exchange ticks and updates."
    )
