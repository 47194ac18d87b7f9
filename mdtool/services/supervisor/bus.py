"""What runs where a supervisor's services hand everything over on a bus."""

from __future__ import annotations

from typing import Final

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.core.errors import UsageError
from mdtool.services.supervisor.config import ServeConfig

STORE: Final = "store"
"""The program that keeps what is on the bus, and listens nowhere."""
_SCALED: Final = "aggregate"
_MAX_SCALE: Final = 64


def aggregators(config: ServeConfig) -> int:
    """Return how many aggregation services are wanted.

    Raises
    ------
    UsageError
        When the bus is none, or it is not said as it should be.
    """
    if config.bus:
        KafkaAddress.parse(config.bus)
    if not config.scale:
        return 1
    if not config.bus:
        raise UsageError("--scale wants --bus, on which services share their work")
    name, _, count = config.scale.partition("=")
    is_count = count.isascii() and count.isdigit() and 1 <= int(count) <= _MAX_SCALE
    if name.strip() != _SCALED or not is_count:
        raise UsageError(f"--scale {config.scale}: say {_SCALED}=N, N from 1 to {_MAX_SCALE}")
    return int(count)
