"""What protects the gateway from its clients, and what it asks from both, as it is configured."""

from __future__ import annotations

from collections.abc import Mapping

from mdtool.core.breaker import BreakerRules
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.guard import Guard
from mdtool.services.gateway.limits import RequestLimit, SocketLimit, UpstreamLimit
from mdtool.services.gateway.origins import Origins, parse_origins
from mdtool.services.gateway.resilience import Resilience, RetryRules
from mdtool.services.gateway.time_share import TimeShare


class Protection:
    """All of it.

    Parameters
    ----------
    config : GatewayConfig

    Attributes
    ----------
    origins : Origins
    requests : RequestLimit
        Of what memory answers.
    upstream : UpstreamLimit
    sockets : SocketLimit
    time_share : TimeShare
        Each client's, for what it says.
    guard : Guard
    resilience : Resilience
        Of the calls to the aggregator.

    Raises
    ------
    ConfigError
        When an origin is none.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        rate_per_s = config.memory_requests_per_s
        self.origins = Origins(parse_origins(config.allowed_origins))
        self.requests = RequestLimit("memory", rate_per_s, max(1, rate_per_s))
        self.upstream = UpstreamLimit(config.upstream_requests_per_s, config.upstream_burst)
        self.sockets = SocketLimit(config.max_sockets, config.client_sockets)
        self.time_share = TimeShare(config.client_time_percent)
        self.guard = Guard(self.origins, self.requests, config.proxies)
        self.resilience = self.resilience_of(f"aggregator {config.aggregator}")

    def resilience_of(self, name: str) -> Resilience:
        """Return how a service is asked; errors call it `name`."""
        config = self._config
        return Resilience(
            name,
            RetryRules(
                attempts=config.attempts,
                wait_s=config.retry_ms / 1_000,
                timeout_s=config.timeout_ms / 1_000,
            ),
            BreakerRules(
                window=config.breaker_window,
                least=config.breaker_least,
                failed_share=config.breaker_failed_percent / 100,
                open_s=config.breaker_open_ms / 1_000,
                trials=config.breaker_trials,
            ),
        )

    @property
    def refused(self) -> Mapping[str, int]:
        """How much was turned away, by what limit."""
        return {
            "requests": self.requests.refused,
            "upstream": self.upstream.refused,
            "sockets": self.sockets.refused,
            "origins": self.origins.refused,
        }
