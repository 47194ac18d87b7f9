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

    Parameters
    ----------
    admission : Admission
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._limits = {"requests": admission.requests, "upstream": admission.upstream}
        for limit in self._limits.values():
            limit.spent = Counter()
        admission.changed = set()

    def news(self) -> Mapping[str, Any]:
        """Return what clients used since the last call, empty where they used nothing."""
        admission, news = self._admission, {}
        for name, limit in self._limits.items():
            if limit.spent:
                news[name] = dict(limit.spent)
                limit.spent.clear()
        if admission.changed:
            open_of = admission.open_of
            news["open"] = {identity: open_of.get(identity, 0) for identity in admission.changed}
            admission.changed.clear()
        return news

    def open(self) -> Mapping[str, Any]:
        """Return all connections, as news for a worker that knows none."""
        return {"open": dict(self._admission.open_of)}

    def apply(self, worker: int, news: Mapping[str, Any]) -> None:
        """Count what clients used of another worker."""
        for name, limit in self._limits.items():
            for client, requests in news.get(name, {}).items():
                limit.charge(client, requests)
        if "open" in news:
            elsewhere = self._admission.elsewhere.setdefault(worker, Elsewhere())
            elsewhere.update(news["open"])

    def forget(self, worker: int) -> None:
        """Drop the connections of a worker that has ended."""
        self._admission.elsewhere.pop(worker, None)
