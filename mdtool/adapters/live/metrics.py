"""What a live source has brought, for Prometheus."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from mdtool.core.errors import StartupError
from mdtool.core.units import counted

_REFUSED: Final = ("symbol", "price", "size", "lot", "timestamp", "malformed")
_TOTALS: Final = {
    "trades": "Trades received.",
    "quotes": "Quotes received.",
    "records": "Records received of any kind, where the source sends DBN.",
    "duplicates": "Trades left out that the source had sent before.",
    "irregular": "Trades left out for their conditions.",
    "gaps": "Times at which the stream may lack records.",
    "notes": "Corrections and cancellations of trades.",
}


class _Counts(Collector):
    def __init__(self, source: str, counts: Counter[str]) -> None:
        self._source = source
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        for name, what in _TOTALS.items():
            family = CounterMetricFamily(f"mdtool_ingest_{name}", what, labels=["source"])
            family.add_metric([self._source], self._counts[name])
            yield family
        family = CounterMetricFamily(
            "mdtool_ingest_refused", "Refused, by reason.", labels=["source", "reason"]
        )
        for reason in _REFUSED:
            family.add_metric([self._source, reason], self._counts[reason])
        yield family


@contextlib.contextmanager
def served(source: str, counts: Counter[str], port: int | None) -> Iterator[None]:
    """Serve a source's counts at a port of 127.0.0.1 within the block; None serves nothing.

    Raises
    ------
    StartupError
        When the port is in use.
    """
    if port is None:
        yield
        return
    registry = CollectorRegistry()
    registry.register(_Counts(source, counts))
    try:
        server, thread = start_http_server(port, "127.0.0.1", registry)
    except OSError as error:
        raise StartupError(f"--metrics-port {port}: {error.strerror}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def described(counts: Counter[str]) -> str:
    """Return counts in words, such as `1,203 trades, 2 gaps; refused 1 lot`."""
    totals = [_counted(counts[name], name) for name in _TOTALS if counts[name]]
    refused = [f"{counts[reason]:,} {reason}" for reason in _REFUSED if counts[reason]]
    said = ", ".join(totals) or "nothing"
    return f"{said}; refused {', '.join(refused)}" if refused else said


def _counted(count: int, name: str) -> str:
    return counted(count, name[:-1]) if name.endswith("s") else f"{count:,} {name}"
