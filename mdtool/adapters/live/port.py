"""The ports of live sources: a source is bytes of DBN, a session speaks over one WebSocket."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from mdtool.adapters.live.config import SourceConfig
from mdtool.wire.source_stream import Event


@dataclass(frozen=True, slots=True)
class Request:
    """What is requested of a source.

    Attributes
    ----------
    symbols : sequence of str
        As the source calls them.
    config : SourceConfig
    keys : mapping of str to str
        The source's keys, by the names of their variables.
    """

    symbols: Sequence[str]
    config: SourceConfig = field(default_factory=SourceConfig)
    keys: Mapping[str, str] = field(default_factory=dict)


class LiveSource(Protocol):
    """A DBN stream that is written while it is read. It begins when the source is made."""

    name: str
    counts: Counter[str]
    """What came: `trades` and so on; what was left out, by reason; `gaps`."""

    def read(self, n_bytes: int) -> bytes:
        """Wait for bytes and return those that have come, at most so many; none at the end.

        Raises
        ------
        PeerError
            When the source rejects the keys or all symbols, which another attempt would not change.
        InputError
            When a recording cannot be read.
        """
        ...

    def end(self) -> None:
        """Receive nothing more: `read` returns what has come, then nothing. For signal handlers."""
        ...

    def close(self) -> None:
        """End the connection. A `read` that waits in another thread returns."""
        ...


class Session(Protocol):
    """The client's side of one connection: texts in, events out. It does no I/O.

    A class of it is a source: its attributes say where that is and what it needs.
    """

    name: ClassVar[str]
    dataset: ClassVar[str]
    instrument_class: ClassVar[str]
    """As in definitions: `K` for stocks, `X` for currencies."""
    schemas: ClassVar[tuple[str, ...]]
    keys: ClassVar[tuple[str, ...]]
    """The variables of its keys, none for a public source."""

    symbols: Sequence[str]
    """Those that are requested, as the stream names them."""

    def __init__(self, request: Request) -> None: ...

    @property
    def url(self) -> str:
        """Where to connect, with a key in its query if that is how the source expects it."""
        ...

    @property
    def lots_url(self) -> str | None:
        """What to request by HTTP before: the answer is received as a message."""
        ...

    def begin(self) -> Iterable[Event]:
        """Return the events of a connection that was just opened."""
        ...

    def receive(self, text: str) -> Iterable[Event]:
        """Return the events of a message.

        Raises
        ------
        ValueError, LookupError, TypeError, AttributeError, ArithmeticError, UsageError
            When it is not as the protocol says.
        """
        ...
