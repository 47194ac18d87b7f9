"""What services count, as families of Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from mdtool.core.descriptors import shortage
from mdtool.services.client import Tally
from mdtool.wire.batches import Counts


def accept_pauses() -> Metric:
    """Return how often this process accepted no connections for a while."""
    return counter(
        "mdtool_accept_pauses",
        "Times that a listener paused, for the process had no descriptor left.",
        shortage.pauses,
    )


def refused(counts: Mapping[str, int]) -> Metric:
    """Return how many requests and connections were refused, by limit."""
    family = CounterMetricFamily(
        "mdtool_refused", "Requests of clients over a limit.", labels=("limit",)
    )
    for limit, count in counts.items():
        family.add_metric((limit,), count)
    return family


def connections(tallies: Mapping[str, Tally]) -> Iterator[Metric]:
    """Yield what is counted of each listener's connections."""
    labels = ("path",)
    families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {
        "open": GaugeMetricFamily("mdtool_sockets", "Connections open.", labels=labels),
        "opened": CounterMetricFamily("mdtool_sockets_opened", "Connections ever.", labels=labels),
        "refused": CounterMetricFamily(
            "mdtool_sockets_refused", "Rejected for their number.", labels=labels
        ),
        "sent": CounterMetricFamily(
            "mdtool_socket_messages", "Messages written to them.", labels=labels
        ),
        "conflated": CounterMetricFamily(
            "mdtool_socket_conflated", "Messages that a later one replaced.", labels=labels
        ),
        "dropped": CounterMetricFamily(
            "mdtool_socket_dropped",
            "Events that a slow client missed; each loss is reported to it.",
            labels=labels,
        ),
        "behind": CounterMetricFamily(
            "mdtool_sockets_behind", "Closed because the client did not read.", labels=labels
        ),
    }
    for path, tally in tallies.items():
        for name, family in families.items():
            family.add_metric((path,), getattr(tally, name))
    yield from families.values()


def ticks(counts: Counts) -> Iterator[Metric]:
    """Yield what is counted of the ticks of a market."""
    yield counter("mdtool_ticks", "Ticks that the aggregator accepted.", counts.ticks)
    yield counter(
        "mdtool_ticks_duplicate", "Ticks that were resent and skipped.", counts.duplicates
    )
    yield counter("mdtool_ticks_late", "Ticks too late for a time bar.", counts.late)
    yield counter(
        "mdtool_ticks_late_for_sessions",
        "Ticks of a session that is not kept any more.",
        counts.late_for_sessions,
    )
    by_reason = CounterMetricFamily("mdtool_ticks_refused", "Ticks refused.", labels=("reason",))
    for reason, count in counts.refused.items():
        by_reason.add_metric((reason,), count)
    yield by_reason


def counter(name: str, text: str, value: float) -> Metric:
    """Return a counter without labels."""
    return CounterMetricFamily(name, text, value)
