"""What clients use of all workers: limits count it together, a little later elsewhere than here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from mdtool.services.client import Admission, Elsewhere

EVERY_S: Final = 0.05
"""How often workers exchange what clients used; in between, a client of several workers may
exceed a limit, and pays for it afterwards."""


class Usage:
    """Shares an admission's limits with other workers.

    What clients spend is sent as it grows; what they hold, connections and subscriptions, as the
    number that it has become.

    Parameters
    ----------
    admission : Admission
    """

    def __init__(self, admission: Admission) -> None:
        self._rates = {
            f"{quota_class}/{name}": rate
            for quota_class, quota in admission.quotas.items()
            for name, rate in quota.rates.items()
        }
        for rate in self._rates.values():
            rate.spent = Counter()
        self._holdings = {
            "connections": admission.connections,
            "subscriptions": admission.subscriptions,
        }
        for holdings in self._holdings.values():
            holdings.changed = set()

    def news(self) -> Mapping[str, Any]:
        """Return what clients used since the last call, empty where they used nothing."""
        news: dict[str, Any] = {}
        for name, rate in self._rates.items():
            if rate.spent:
                news[name] = dict(rate.spent)
                rate.spent.clear()
        for name, holdings in self._holdings.items():
            if holdings.changed:
                news[name] = {
                    identity: holdings.here.get(identity, 0) for identity in holdings.changed
                }
                holdings.changed.clear()
        return news

    def held(self) -> Mapping[str, Any]:
        """Return all that clients hold, as news for a worker that knows nothing."""
        return {name: dict(holdings.here) for name, holdings in self._holdings.items()}

    def apply(self, worker: int, news: Mapping[str, Any]) -> None:
        """Count what clients used of another worker."""
        for name, used in news.items():
            if name in self._holdings:
                elsewhere = self._holdings[name].elsewhere
                elsewhere.setdefault(worker, Elsewhere()).update(used)
            elif name in self._rates:
                for client, count in used.items():
                    self._rates[name].charge(client, count)

    def forget(self, worker: int) -> None:
        """Drop what clients hold of a worker that has ended."""
        for holdings in self._holdings.values():
            holdings.elsewhere.pop(worker, None)
