"""Settings of the service of alerts, `[detect]`, and those of webhooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mdtool.core.config import setting
from mdtool.services.aggregator.peer import aggregator_address, aggregator_socket
from mdtool.services.metrics import metrics_port


def webhook() -> Any:
    """Return the setting of the URLs that are notified."""
    return setting(
        "",
        "URLs that get each alert as it begins and ends, separated by commas; see docs/alerts.md.",
        is_common=True,
        example="https://example.com/alerts",
    )


def webhook_secret() -> Any:
    """Return the setting of their key."""
    return setting("", "The key by which requests to webhooks are signed.")


def webhook_inside() -> Any:
    """Return the setting of where they may be."""
    return setting(False, "Let webhooks have addresses inside the network.")


@dataclass(frozen=True, slots=True)
class DetectConfig:
    """What the service follows, and whom it notifies."""

    aggregator: str = aggregator_address()
    aggregator_socket: str = aggregator_socket()
    bus: str = setting("", "Follow the trades of kafka://HOST:PORT instead of the aggregator.")
    quotes_from: str = setting(
        "",
        "HOST:PORT of a DBN stream with quotes, such as the data port of replay-dbn --serve; "
        "several separated by commas. Without one, quotes and gaps are not judged.",
        is_common=True,
    )
    webhook: str = webhook()
    webhook_secret: str = webhook_secret()
    webhook_inside: bool = webhook_inside()
    metrics_port: int | None = metrics_port()
