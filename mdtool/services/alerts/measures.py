"""What detectors and webhooks count, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from mdtool.services.alerts.watch import Watch
from mdtool.services.alerts.webhooks import Webhooks
from mdtool.services.families import gauge, labelled


def measures(watch: Watch, webhooks: Webhooks) -> Iterator[Metric]:
    """Yield the metrics of alerts, and of webhooks where there are any."""
    began = labelled("mdtool_alerts")
    for labels, count in watch.counts.items():
        began.add_metric(labels, count)
    yield began
    yield gauge("mdtool_alerts_open", watch.open_count())
    if webhooks:
        yield labelled("mdtool_webhook_alerts", webhooks.counts)
