"""What clients hold of a service, connections and subscriptions, here and in other processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """The connections of one listener or path, and what was written to them.

    Attributes
    ----------
    open, opened, refused : int
        Connections open now, ever, and rejected for their number.
    sent, conflated, dropped : int
        Messages written; replaced unwritten by a later one of the same state; and events dropped
        and reported as missed.
    behind : int
        Connections closed because the client did not read.
    """

    open: int = 0
    opened: int = 0
    refused: int = 0
    sent: int = 0
    conflated: int = 0
    dropped: int = 0
    behind: int = 0


@dataclass(slots=True)
class Elsewhere:
    """The connections, or the subscriptions, of another process.

    Attributes
    ----------
    is_worker : bool
        Whether the process is a worker of this service, and not of another one.
    total : int
    of : dict of str to int
        By identity.
    """

    is_worker: bool
    total: int = 0
    of: dict[str, int] = field(default_factory=dict)

    def update(self, changed: Mapping[str, int]) -> None:
        """Set how many some identities have."""
        for identity, count in changed.items():
            self.total += count - self.of.pop(identity, 0)
            if count:
                self.of[identity] = count


class Holdings:
    """What clients hold, connections or subscriptions, here and in other processes.

    Attributes
    ----------
    here : Counter of str
        By identity.
    elsewhere : dict of str to Elsewhere
        By process.
    changed : set of str or None
        Identities whose number here changed, for those processes; None where there are none.
    """

    def __init__(self) -> None:
        self.here: Counter[str] = Counter()
        self.elsewhere: dict[str, Elsewhere] = {}
        self.changed: set[str] | None = None

    def of(self, identity: str) -> int:
        """Return how many a client has."""
        return self.here[identity] + sum(
            process.of.get(identity, 0) for process in self.elsewhere.values()
        )

    def note(self, identity: str, change: int) -> None:
        """Count one that begins or ends."""
        self.here[identity] += change
        if not self.here[identity]:
            del self.here[identity]
        if self.changed is not None:
            self.changed.add(identity)
