"""What services count, as families of Prometheus metrics: one table of all, and what fills it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from mdtool.adapters.live.counts import REFUSED, TOTALS
from mdtool.core.descriptors import shortage
from mdtool.services.client import Admission
from mdtool.services.holdings import Tally
from mdtool.services.times import Histogram
from mdtool.wire.batches import Counts

if TYPE_CHECKING:
    from mdtool.services.alerts.watch import Watch
    from mdtool.services.alerts.webhooks import Webhooks

COUNTER: Final = "counter"
GAUGE: Final = "gauge"
HISTOGRAM: Final = "histogram"


class Family(NamedTuple):
    """A metric: its type, what it says, its labels, and the services that have it."""

    kind: str
    text: str
    labels: tuple[str, ...] = ()
    services: tuple[str, ...] = ("gateway",)


_KAFKA: Final = ("aggregate --bus", "store --bus")
_ALERTS: Final = ("gateway", "detect")
_ALL: Final = (
    *("gateway", "serve-tcp", "aggregate", "vwap", "live-gateway", "ingest", "detect"),
    *_KAFKA,
)
_CLIENTS: Final = ("gateway", "serve-tcp", "aggregate", "vwap", "live-gateway")
_COMMITS: Final = ("aggregate", *_KAFKA)
_TICKS: Final = ("gateway", "aggregate")

FAMILIES: Final[Mapping[str, Family]] = {
    "mdtool_ticks": Family(COUNTER, "Ticks that the aggregator accepted.", (), _TICKS),
    "mdtool_ticks_refused": Family(COUNTER, "Ticks refused, by reason.", ("reason",), _TICKS),
    "mdtool_ticks_duplicate": Family(COUNTER, "Ticks that were resent and skipped.", (), _TICKS),
    "mdtool_ticks_late": Family(COUNTER, "Ticks too late for a time bar.", (), _TICKS),
    "mdtool_ticks_late_for_sessions": Family(
        COUNTER, "Ticks of a session that is not kept any more.", (), _TICKS
    ),
    "mdtool_last_tick_timestamp_seconds": Family(
        GAUGE, "When the latest tick reached an ingest server; 0 before any.", (), ("aggregate",)
    ),
    "mdtool_uncommitted_ticks": Family(
        GAUGE,
        "Ticks taken that await their commit; at `max_uncommitted` senders are blocked.",
        (),
        ("serve-tcp", "aggregate"),
    ),
    "mdtool_frames_taken": Family(
        COUNTER, "Frames taken of clients, refused ones too.", (), ("serve-tcp",)
    ),
    "mdtool_frames_committed": Family(
        COUNTER, "Frames of clients that are committed.", (), ("serve-tcp",)
    ),
    "mdtool_batch_ticks": Family(
        HISTOGRAM, "Ticks of a batch that an ingest server sent.", (), ("aggregate",)
    ),
    "mdtool_streams": Family(
        GAUGE, "Streams of ticks whose positions are known.", (), ("aggregate",)
    ),
    "mdtool_commit_seconds": Family(
        HISTOGRAM,
        "Time for which a group of changes was written to the store, or to Kafka.",
        (),
        _COMMITS,
    ),
    "mdtool_committed_ticks": Family(
        COUNTER, "Ticks of those groups: the mean of a group is their ratio.", (), _COMMITS
    ),
    "mdtool_store_writable": Family(
        GAUGE, "Whether the last write to the store succeeded.", (), ("aggregate",)
    ),
    "mdtool_store_bytes": Family(
        GAUGE, "Size of the store, where it can be told.", (), ("aggregate", "store --bus")
    ),
    "mdtool_kafka_position": Family(
        GAUGE, "Offset of the first record of ticks that is not committed.", ("partition",), _KAFKA
    ),
    "mdtool_kafka_lag": Family(
        GAUGE, "Records of ticks from there to the end of the partition.", ("partition",), _KAFKA
    ),
    "mdtool_kafka_dead_letters": Family(
        COUNTER, "Records of ticks that could not be read.", (), _KAFKA
    ),
    "mdtool_subscribers": Family(
        GAUGE, "Streams of updates that are read, of gateways and others.", (), ("aggregate",)
    ),
    "mdtool_symbols": Family(
        GAUGE, "Symbols that are known.", (), ("gateway", "aggregate", "vwap")
    ),
    "mdtool_symbols_stale": Family(GAUGE, "Those that are stale."),
    "mdtool_stream_up": Family(GAUGE, "Whether the aggregator's stream is connected."),
    "mdtool_stream_held_up": Family(GAUGE, "Whether the aggregator cannot commit ticks."),
    "mdtool_stream_connections": Family(COUNTER, "Streams opened to the aggregator."),
    "mdtool_stream_messages": Family(COUNTER, "Messages of those streams."),
    "mdtool_update_age_seconds": Family(
        HISTOGRAM,
        "Tick to shown: age of the oldest update of a round, from ingest to its last write.",
    ),
    "mdtool_update_age_recent_seconds": Family(
        GAUGE, "The highest of those ages in the last seconds, 0 where nothing was written."
    ),
    "mdtool_fanout_rounds": Family(COUNTER, "Rounds of writes to clients."),
    "mdtool_fanout_conflated": Family(
        COUNTER, "Payloads that a later one replaced while a round was written."
    ),
    "mdtool_fanout_dropped": Family(
        COUNTER, "Events that were dropped while a round was written, and reported as missed."
    ),
    "mdtool_quotes": Family(GAUGE, "Symbols that have a quote."),
    "mdtool_quotes_stale": Family(GAUGE, "Those that are stale."),
    "mdtool_alerts": Family(
        COUNTER,
        "Alerts that began, by the severity that they began with.",
        ("kind", "severity"),
        _ALERTS,
    ),
    "mdtool_alerts_open": Family(GAUGE, "Alerts that are open.", (), _ALERTS),
    "mdtool_webhook_alerts": Family(
        COUNTER, "Alerts for webhooks, by outcome, where there are any.", ("outcome",), _ALERTS
    ),
    "mdtool_quote_hub_up": Family(GAUGE, "Whether the hub is connected."),
    "mdtool_quote_source_up": Family(
        GAUGE, "Whether the DBN stream of quotes is connected, where there is one."
    ),
    "mdtool_request_seconds": Family(
        HISTOGRAM, "HTTP requests by route and status.", ("route", "status")
    ),
    "mdtool_upstream_calls": Family(
        COUNTER, "Requests to the aggregator, by outcome; repeated ones count again.", ("outcome",)
    ),
    "mdtool_upstream_repeats": Family(COUNTER, "Those that were repeated."),
    "mdtool_circuit": Family(GAUGE, "1 for the state of the circuit.", ("state",)),
    "mdtool_circuit_opened": Family(COUNTER, "Times the circuit opened."),
    "mdtool_store_up": Family(GAUGE, "Whether the store that is read responds."),
    "mdtool_store_calls": Family(
        COUNTER, "Requests to that store, by outcome; repeated ones count again.", ("outcome",)
    ),
    "mdtool_client_waits": Family(
        COUNTER, "Messages that waited, for their client had used its share of the time."
    ),
    "mdtool_refused": Family(COUNTER, "Requests of clients over a limit.", ("limit",), _CLIENTS),
    "mdtool_sockets": Family(GAUGE, "Connections open, by path or protocol.", ("path",), _CLIENTS),
    "mdtool_sockets_opened": Family(COUNTER, "Connections ever.", ("path",), _CLIENTS),
    "mdtool_sockets_refused": Family(COUNTER, "Rejected for their number.", ("path",), _CLIENTS),
    "mdtool_sockets_behind": Family(
        COUNTER, "Closed because the client did not read.", ("path",), _CLIENTS
    ),
    "mdtool_socket_messages": Family(COUNTER, "Messages written to them.", ("path",), _CLIENTS),
    "mdtool_socket_conflated": Family(
        COUNTER, "Messages that a later one replaced.", ("path",), _CLIENTS
    ),
    "mdtool_socket_dropped": Family(
        COUNTER,
        "Events that a slow client missed; each loss is reported to it.",
        ("path",),
        _CLIENTS,
    ),
    "mdtool_accept_pauses": Family(
        COUNTER, "Times that a listener paused, for the process had no descriptor left.", (), _ALL
    ),
    "mdtool_loop_lag_seconds": Family(
        GAUGE,
        "How late the event loop ran a timer, the latest of one a second.",
        (),
        _ALL,
    ),
    **{
        f"mdtool_ingest_{name}": Family(COUNTER, text, ("source",), ("ingest",))
        for name, text in TOTALS.items()
    },
    "mdtool_ingest_refused": Family(
        COUNTER, "Refused, by reason.", ("source", "reason"), ("ingest",)
    ),
}
"""All metrics of mdtool's own, by name. Counters end in `_total` where they are scraped."""


def gauge(name: str, value: float) -> Metric:
    """Return a gauge of the table, without labels."""
    family = FAMILIES[name]
    assert family.kind == GAUGE
    return GaugeMetricFamily(name, family.text, value)


def counter(name: str, value: float) -> Metric:
    """Return a counter of the table, without labels."""
    family = FAMILIES[name]
    assert family.kind == COUNTER
    return CounterMetricFamily(name, family.text, value)


def labelled(
    name: str, values: Mapping[str, float] | None = None
) -> GaugeMetricFamily | CounterMetricFamily:
    """Return a gauge or counter of the table with a label, of which some values are known."""
    family = FAMILIES[name]
    make = GaugeMetricFamily if family.kind == GAUGE else CounterMetricFamily
    made = make(name, family.text, labels=family.labels)
    for label, value in (values or {}).items():
        made.add_metric((label,), value)
    return made


def histogram(name: str, times: Mapping[tuple[str, ...], Histogram]) -> Metric:
    """Return a histogram of the table: times by the values of its labels."""
    family = FAMILIES[name]
    assert family.kind == HISTOGRAM
    made = HistogramMetricFamily(name, family.text, labels=family.labels)
    for labels, each in times.items():
        bounds = (*map(str, each.bounds_s), "+Inf")
        buckets = list(zip(bounds, accumulate(each.buckets), strict=True))
        made.add_metric(labels, buckets, each.total_s)
    return made


def accept_pauses() -> Metric:
    """Return how often this process accepted no connections for a while."""
    return counter("mdtool_accept_pauses", shortage.pauses)


def clients(admission: Admission) -> Iterator[Metric]:
    """Yield what is counted of a service's clients."""
    yield labelled("mdtool_refused", admission.refused)
    yield from connections(admission.tallies)


def alerts(watch: Watch, webhooks: Webhooks) -> Iterator[Metric]:
    """Yield what is counted of alerts, and of webhooks where there are any."""
    began = labelled("mdtool_alerts")
    for labels, count in watch.counts.items():
        began.add_metric(labels, count)
    yield began
    yield gauge("mdtool_alerts_open", watch.open_count())
    if webhooks:
        yield labelled("mdtool_webhook_alerts", webhooks.counts)


def connections(tallies: Mapping[str, Tally]) -> Iterator[Metric]:
    """Yield what is counted of each listener's connections."""
    for name, attribute in (
        ("mdtool_sockets", "open"),
        ("mdtool_sockets_opened", "opened"),
        ("mdtool_sockets_refused", "refused"),
        ("mdtool_socket_messages", "sent"),
        ("mdtool_socket_conflated", "conflated"),
        ("mdtool_socket_dropped", "dropped"),
        ("mdtool_sockets_behind", "behind"),
    ):
        yield labelled(name, {path: getattr(tally, attribute) for path, tally in tallies.items()})


def ticks(counts: Counts) -> Iterator[Metric]:
    """Yield what is counted of the ticks of a market."""
    yield counter("mdtool_ticks", counts.ticks)
    yield counter("mdtool_ticks_duplicate", counts.duplicates)
    yield counter("mdtool_ticks_late", counts.late)
    yield counter("mdtool_ticks_late_for_sessions", counts.late_for_sessions)
    yield labelled("mdtool_ticks_refused", counts.refused)


def live_source(name: str, counts: Mapping[str, int]) -> Iterator[Metric]:
    """Yield what a live source has brought."""
    for total in TOTALS:
        yield labelled(f"mdtool_ingest_{total}", {name: counts[total]})
    refused = labelled("mdtool_ingest_refused")
    for reason in REFUSED:
        refused.add_metric((name, reason), counts[reason])
    yield refused


class LoopLag:
    """How late the event loop runs a timer, measured within a block once a second."""

    _EVERY_S: Final = 1.0

    def __init__(self) -> None:
        self.seconds = 0.0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._measure())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _measure(self) -> None:
        now_s = asyncio.get_running_loop().time
        while True:
            due_s = now_s() + self._EVERY_S
            await asyncio.sleep(self._EVERY_S)
            self.seconds = max(0.0, now_s() - due_s)
