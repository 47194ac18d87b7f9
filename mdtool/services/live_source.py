"""A live source as records, with its metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mdtool.adapters.dbn_source import DerivedSource
from mdtool.adapters.live.config import SourceConfig
from mdtool.adapters.live.records import LiveRecords, open_live
from mdtool.core.batch import Batch
from mdtool.services.metrics import metrics_in_thread

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class MeasuredSource(DerivedSource):
    """A live source whose counts are served meanwhile, where a port is named.

    Parameters
    ----------
    live : LiveRecords
        Closed together with this one.
    port : int, optional

    Attributes
    ----------
    end : callable
        As `LiveSource.end`.

    Raises
    ------
    StartupError
        When the port is in use.
    """

    def __init__(self, live: LiveRecords, port: int | None) -> None:
        super().__init__(live)
        self._live = live
        self.end = live.end
        self._metrics = contextlib.ExitStack()
        try:
            self._metrics.enter_context(metrics_in_thread(port, self._measures))
        except BaseException:
            live.close()
            raise

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._live)

    def close(self) -> None:
        """Close the source, and stop serving its counts."""
        super().close()
        self._metrics.close()

    def _measures(self) -> Iterator[Metric]:
        from mdtool.services import families

        return families.live_source(self._live.name, self._live.counts)


def open_measured(source: str, symbols: Sequence[str], config: SourceConfig) -> MeasuredSource:
    """Open a live source as `open_live`, and serve its counts at the port of the settings.

    Raises
    ------
    UsageError, InputError, OutputError
        As `open_live`.
    StartupError
        When the port of the metrics is in use.
    """
    return MeasuredSource(open_live(source, symbols, config), config.metrics_port)
