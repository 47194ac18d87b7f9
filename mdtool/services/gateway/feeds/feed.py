"""The port of feeds: one kind of data that the gateway publishes, by symbol."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar, overload

from mdtool.core.errors import MdtoolError
from mdtool.core.permissions import Reader
from mdtool.services.client import Client
from mdtool.services.gateway.backlog import Event
from mdtool.services.gateway.hub import Format, Hub, Subscription
from mdtool.services.gateway.parameters import parse_before

ALL: Final = "*"
"""The symbol of a key that means every symbol."""

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
"""A row of a feed: a NamedTuple with `symbol`, and `is_stale` where it can be stale."""


class Key(NamedTuple):
    """What is requested of a feed.

    Attributes
    ----------
    symbol : str
        Upper-case, or ALL.
    option : str, int or None
        What else selects: the interval of bars, the depth of books.
    """

    symbol: str
    option: str | int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a history is requested.

    Attributes
    ----------
    limit : int
        At most so many rows.
    cursor : str or None
        `next` of the page before.
    from_ns, to_ns : int or None
        Times, inclusive and exclusive.
    is_ascending : bool
        Oldest first; newest first by default.
    symbols : frozenset of str
        Of a history of every symbol, those that are requested; empty for all.
    """

    limit: int
    cursor: str | None = None
    from_ns: int | None = None
    to_ns: int | None = None
    is_ascending: bool = False
    symbols: frozenset[str] = frozenset()

    @classmethod
    def before(cls, limit: int, place: str | None) -> Page:
        """Return a page as contracts of version 1 request it.

        Parameters
        ----------
        limit : int
        place : str or None
            The cursor of the page before, or a time in ms since the epoch, exclusive; None and
            empty for the first page.

        Raises
        ------
        ParameterError
            When it cannot be either.
        """
        if not place:
            return cls(limit)
        if place.isascii() and place.isdigit():
            return cls(limit, to_ns=parse_before(place))
        return cls(limit, cursor=place)


@dataclass(frozen=True, slots=True)
class Rows(Generic[R_co]):
    """Rows of a history.

    Attributes
    ----------
    rows : sequence of R_co
    next : str or None
        The cursor of the page behind this one, None at the end.
    is_stale : bool
        Whether this is the last that is known, its source being unavailable.
    """

    rows: Sequence[R_co]
    next: str | None = None
    is_stale: bool = False


class LazyRows(Sequence[R]):
    """Rows that are made when they are read: of 20,000 symbols a page may need 100.

    Parameters
    ----------
    keys : sequence
        Of the rows, such as symbols.
    row : callable
        Returns the row of a key.
    """

    def __init__(self, keys: Sequence[Any], row: Callable[[Any], R]) -> None:
        self._keys = keys
        self._row = row

    def __len__(self) -> int:
        return len(self._keys)

    def only(self, chooses: Callable[[Any], bool]) -> LazyRows[R]:
        """Return the rows of those keys that a function chooses."""
        return LazyRows(list(filter(chooses, self._keys)), self._row)

    @overload
    def __getitem__(self, index: int) -> R: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[R]: ...

    def __getitem__(self, index: int | slice) -> R | Sequence[R]:
        if isinstance(index, slice):
            return list(map(self._row, self._keys[index]))
        return self._row(self._keys[index])


class Feed(Protocol[R_co]):
    """One kind of data. Protocols know feeds by this port and the table alone."""

    async def current(self, client: Client, key: Key) -> Sequence[R_co]:
        """Return the current state of a symbol, one row or for trades the latest; of ALL, each's.

        Rows are in order of symbol; trades, oldest first.

        Raises
        ------
        UnknownSymbolError
            When the symbol has no such data.
        LimitError
            When the client requested too much.
        PeerError
            When the source is unavailable and nothing is known.
        """
        ...

    def knows(self, key: Key) -> bool:
        """Return whether a symbol has such data, as far as the gateway knows without a request."""
        ...

    def follow(
        self, key: Key, subscription: Subscription, after: str | None = None
    ) -> Callable[[], None]:
        """Send a subscription the current state and then every change; return what ends that.

        An unknown symbol is followed from its first data on.

        Parameters
        ----------
        key : Key
        subscription : Subscription
        after : str, optional
            Of a feed of events, the identity of the last one that the client has: those behind it
            are sent in place of the current state.

        Raises
        ------
        ParameterError
            When the key is not valid for the feed.
        LimitError
            When the client follows too much that is requested upstream.
        """
        ...


class MemoryFeed(Feed[R_co], Protocol[R_co]):
    """A feed whose current rows are in memory."""

    @property
    def changes(self) -> int:
        """A number that rises whenever a row changes."""
        ...

    def find(self, symbol: str) -> R_co:
        """Return the row of a symbol, the same object until it changes.

        Raises
        ------
        UnknownSymbolError
            When the symbol has no such data.
        UnavailableError
            When that is unknown, for the source is unavailable.
        """
        ...


class HistoryFeed(Feed[R_co], Protocol[R_co]):
    """A feed that has a history."""

    async def history(self, client: Client, key: Key, page: Page) -> Rows[R_co]:
        """Return a page of a symbol's history.

        Pages that follow each other by their cursors have every row once that existed when the
        first was requested.

        Raises
        ------
        ParameterError
            When the cursor is another key's, or none.
        UnknownSymbolError, LimitError, PeerError
            As `current` does.
        """
        ...


class SessionFeed(Feed[R_co], Protocol[R_co]):
    """A feed whose rows are of sessions."""

    async def past(self, client: Client, key: Key, session: str) -> R_co:
        """Return the row of a symbol's previous session, or of that of a date.

        Raises
        ------
        UnknownSymbolError
            When it is not kept.
        LimitError, PeerError
            As `current` does.
        """
        ...


class Channel(NamedTuple):
    """The subscriptions to one key that are written the same: a topic of the hub.

    Attributes
    ----------
    audience : Audience
    key : Key
    format : Format
    reader : Reader or None
        Of every symbol: which of them the permission class may read, None for all.
    """

    audience: Audience[Any]
    key: Key
    format: Format
    reader: Reader | None


class Audience(Generic[R]):
    """The subscriptions to one feed, by key, format and permission class.

    Each row is encoded once a format, and published to those classes that may read its symbol.

    Parameters
    ----------
    hub : Hub
        Shared by all feeds, so that what changes at once is written at once.
    """

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._channels: dict[Key, dict[Channel, int]] = {}
        self._subscriptions: dict[Key, dict[Subscription, None]] = {}

    def __bool__(self) -> bool:
        return bool(self._channels)

    def __contains__(self, key: Key) -> bool:
        """Return whether a client follows a key, or every symbol of its option."""
        return key in self._channels or Key(ALL, key.option) in self._channels

    def is_followed(self, key: Key) -> bool:
        """Return whether a client follows exactly this key."""
        return key in self._channels

    def keys(self) -> Iterable[Key]:
        """Return the keys that are followed."""
        return self._channels.keys()

    def join(
        self, key: Key, subscription: Subscription, snapshot: Iterable[tuple[R, Hashable]]
    ) -> Callable[[], None]:
        """Add a subscription, which gets the snapshot first; return what ends it.

        Parameters
        ----------
        key : Key
        subscription : Subscription
        snapshot : iterable of (R, hashable)
            Rows and their states as in `publish`; read lazily, some a turn of the event loop. What
            may not be read is left out.
        """
        encode, reader = subscription.format.encode, subscription.reader
        if key.symbol != ALL:
            reader = None  # the one symbol may be read
        channels = self._channels.setdefault(key, {})
        channel = Channel(self, key, subscription.format, reader)
        channels[channel] = channels.get(channel, 0) + 1
        self._subscriptions.setdefault(key, {})[subscription] = None
        leave = self.hub.subscribe(channel, subscription)
        end_snapshot = self.hub.begin_snapshot(
            subscription.outlet,
            (
                subscription.update(encode(row, True), state)
                for row, state in snapshot
                if reader is None or reader.can_read(_symbol_of(row))
            ),
        )
        has_ended = False

        def end() -> None:
            nonlocal has_ended
            if has_ended:
                return
            has_ended = True
            end_snapshot()
            leave()
            del self._subscriptions[key][subscription]
            channels[channel] -= 1
            if not channels[channel]:
                del channels[channel]
            if not channels:
                del self._channels[key], self._subscriptions[key]

        return end

    def publish(self, key: Key, row: R, state: Hashable) -> None:
        """Send a row to everybody who follows its key, or every symbol and may read this one.

        Parameters
        ----------
        key : Key
            Of one symbol.
        row : R
        state : hashable
            What the row is the latest of, among all of the feed, such as the symbol; an `Event`
            where no later row replaces it.
        """
        self._publish((key, Key(ALL, key.option)), row, state)

    def send(self, key: Key, row: R, state: Hashable) -> None:
        """Send a row to those who follow exactly this key, with a state as in `publish`."""
        self._publish((key,), row, state)

    def _publish(self, keys: Iterable[Key], row: R, state: Hashable) -> None:
        encoded: dict[Format, bytes] = {}
        for key in keys:
            for channel in self._channels.get(key, ()):
                if channel.reader is None or channel.reader.can_read(_symbol_of(row)):
                    format_ = channel.format
                    payload = encoded.get(format_)
                    if payload is None:
                        payload = encoded[format_] = format_.encode(row)
                    self.hub.publish(channel, payload, state)

    def miss(self, key: Key, symbol: str, count: int | None) -> None:
        """Report events that the feed itself dropped, None where their number is unknown."""
        for followed in (key, Key(ALL, key.option)):
            for channel in self._channels.get(followed, ()):
                if channel.reader is None or channel.reader.can_read(symbol):
                    payload = channel.format.missed(symbol, count)
                    self.hub.publish(channel, payload, Event(symbol, count))

    def interrupt(self) -> None:
        """Report to every follower that an unknown number of events was missed."""
        for key, channels in self._channels.items():
            for channel in channels:
                payload = channel.format.missed(key.symbol, None)
                self.hub.publish(channel, payload, Event(key.symbol, None))

    def fail(self, key: Key, error: MdtoolError) -> None:
        """End every subscription to a key with a reason."""
        for subscription in list(self._subscriptions.get(key, ())):
            subscription.fail(error)


def _symbol_of(row: Any) -> str:
    symbol: str = row.symbol
    return symbol
