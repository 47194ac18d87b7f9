"""Rate limits of clients: a token bucket for each."""

from __future__ import annotations

from typing import Final

from mdtool.core.units import NS_PER_S

MAX_CLIENTS: Final = 65_536
_SWEEP_FROM: Final = 1_024


class Throttle:
    """A bucket of `burst` tokens for each client, filled at a constant rate. It has no clock.

    A bucket is one number, the time at which it will be full (the generic cell rate algorithm of
    ATM Forum TM 4.0, 4.4.2). Libraries count in windows, which have no burst, and take 12 us a
    request, a fifth of the request itself; this takes 0.3.

    Times are the caller's, in nanoseconds of a monotonic clock.

    Parameters
    ----------
    rate_per_s : int
        Tokens a second, from 1.
    burst : int
        Tokens of a full bucket, from 1.
    max_clients : int
        How many buckets are stored. Of more, those of the oldest clients are dropped, which are
        full then.
    """

    def __init__(self, rate_per_s: int, burst: int, max_clients: int = MAX_CLIENTS) -> None:
        self.rate_per_s = rate_per_s
        self.burst = burst
        self._period_ns = -(-NS_PER_S // rate_per_s)
        self._depth_ns = self._period_ns * burst
        self._max_clients = max_clients
        self._sweep_at = min(_SWEEP_FROM, max_clients)
        self._full_at: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def spend(self, client: str, now_ns: int) -> int:
        """Take a token and return 0; without one, return the ns until there is one."""
        full_at = self._full_at.get(client, now_ns)
        full_at = max(full_at, now_ns)
        full_at += self._period_ns
        wait_ns = full_at - now_ns - self._depth_ns
        if wait_ns > 0:
            return wait_ns
        self._full_at[client] = full_at
        if len(self._full_at) > self._sweep_at:
            self._sweep(now_ns)
        return 0

    def wait_ns(self, client: str, now_ns: int) -> int:
        """Return the ns until there is a token, 0 if there is one."""
        full_at = max(self._full_at.get(client, now_ns), now_ns)
        return max(0, full_at + self._period_ns - now_ns - self._depth_ns)

    def charge(self, client: str, now_ns: int, tokens: int) -> None:
        """Take tokens that are used already, even more than there are."""
        full_at = max(self._full_at.get(client, now_ns), now_ns)
        self._full_at[client] = full_at + tokens * self._period_ns
        if len(self._full_at) > self._sweep_at:
            self._sweep(now_ns)

    def left(self, client: str, now_ns: int) -> int:
        """Return the number of tokens in a client's bucket."""
        spent_ns = max(0, self._full_at.get(client, now_ns) - now_ns)
        return max(0, self._depth_ns - spent_ns) // self._period_ns

    def _sweep(self, now_ns: int) -> None:
        """Drop full buckets, and more if too many are left."""
        partial = [(client, at) for client, at in self._full_at.items() if at > now_ns]
        self._full_at = dict(partial[-max(1, self._max_clients // 2) :])
        self._sweep_at = max(min(_SWEEP_FROM, self._max_clients), 2 * len(self._full_at))
