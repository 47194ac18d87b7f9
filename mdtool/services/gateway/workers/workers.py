"""A gateway of several processes: it starts its workers, and starts one again that has ended."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from mdtool.core import logs
from mdtool.core.addresses import cannot_listen
from mdtool.core.config import variable
from mdtool.core.lifecycle import Started, drain_s, stop_within_s
from mdtool.core.tcp import bind, close_all
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.workers.coordinator import Coordinator
from mdtool.services.gateway.workers.peers import WORKER, Place
from mdtool.services.supervisor.output import styles
from mdtool.services.supervisor.programs import PYTHON, Program
from mdtool.services.supervisor.supervisor import Supervisor

_SECTION = "gateway"
_STOP_SHARE = 0.8
"""Of the time to stop, for the workers."""


class Workers:
    """Runs the workers of a gateway until it is cancelled.

    Each is a gateway of its own, with its own streams from the services behind it; all listen on
    one port. What they share goes through a `Coordinator` in this process.

    Parameters
    ----------
    config : GatewayConfig
    """

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config

    async def run(self, started: Started) -> None:
        """Serve until cancelled.

        Raises
        ------
        StartupError
            When the address cannot be listened on, or a worker cannot start.
        """
        with _reserved(self._config) as config, _private_folder() as folder:
            path = str(folder / "coordinator")
            programs = [
                Program(
                    name=f"gateway {worker}",
                    command=[*PYTHON, *logs.options(), _SECTION],
                    group=_SECTION,
                    stop_s=stop_within_s() * _STOP_SHARE + drain_s(),
                    environment={
                        **_settings(config),
                        WORKER: str(Place(worker, config.workers, path)),
                    },
                )
                for worker in range(config.workers)
            ]
            log_format = "json" if "--log-format=json" in logs.options() else "text"
            looks = styles(programs, log_format)

            def ready(addresses: Mapping[str, str]) -> None:
                started({"http": next(iter(addresses.values()))})

            with Coordinator(config.signaling_listeners).listening(path):
                await Supervisor(programs, looks, lambda _: None).run(ready)


@contextlib.contextmanager
def _reserved(config: GatewayConfig) -> Iterator[GatewayConfig]:
    """Yield the settings with a port that is free, and nobody else's until the block ends.

    Raises
    ------
    StartupError
        When it is in use, which workers that share their port would not notice.
    """
    try:
        holders = bind(config.host, config.port)
    except (OSError, UnicodeError) as error:
        raise cannot_listen(error, config.host, config.port) from error
    try:
        yield dataclasses.replace(config, port=holders[0].getsockname()[1])
    finally:
        close_all(holders)


@contextlib.contextmanager
def _private_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mdtool-") as folder:
        yield Path(folder)


def _settings(config: GatewayConfig) -> dict[str, str]:
    """Return the environment in which a process has these settings, whatever else is set."""
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        variable(_SECTION, name): str(value)
        for name, value in settings.items()
        # Without a value none can be set elsewhere either, for that would be in the config.
        if value is not None
    }
