"""A source's messages, live or recorded, turned into events: connection after connection."""

from __future__ import annotations

from dataclasses import replace

from mdtool.adapters.live.messages import INVALID, malformed
from mdtool.adapters.live.port import Request, Session
from mdtool.core.config import did_you_mean
from mdtool.core.errors import UsageError
from mdtool.wire.source_stream import Event, Failed, Gap, Rejected, Subscribed, Trade


class Connections:
    """What one or more connections bring; it is the same whether they are recorded or not.

    Parameters
    ----------
    kind : type of Session
    request : Request

    Attributes
    ----------
    session : Session
        Of the current connection.
    is_live : bool
        Whether the source has accepted the subscription on the current connection.

    Raises
    ------
    UsageError
        When the settings are not valid for the source, or have the lot of another symbol.
    """

    def __init__(self, kind: type[Session], request: Request) -> None:
        self._kind = kind
        self._request = request
        self.session = kind(request)
        self.is_live = False
        for symbol in request.config.lots():
            if symbol not in self.session.symbols:
                hint = did_you_mean(symbol, self.session.symbols)
                raise UsageError(f"--lot {symbol}: is not among the symbols requested{hint}")

    def opened(self) -> list[Event]:
        """Return the events of a new connection."""
        self.session = self._kind(self._request)
        self.is_live = False
        return list(self.session.begin())

    def received(self, text: str) -> list[Event]:
        """Return the events of a message; those before a part that is not valid count."""
        events: list[Event] = []
        try:
            for event in self.session.receive(text):
                if type(event) is Trade or self._is_new(event):
                    events.append(event)
                if type(event) is Rejected:
                    self._reject(event, events)
        except INVALID:
            events.append(malformed(text))
        return events

    def lost(self, reason: str) -> list[Event]:
        """Return the events of a connection that is lost: a gap, if it had brought data."""
        was_live, self.is_live = self.is_live, False
        return [Gap(f"{self._kind.name}: {reason}")] if was_live else []

    def _is_new(self, event: Event) -> bool:
        """Note that the source has accepted the subscription; return False where that is known."""
        if type(event) is not Subscribed:
            return True
        was_live, self.is_live = self.is_live, True
        return not was_live

    def _reject(self, rejected: Rejected, events: list[Event]) -> None:
        """Leave out a symbol from the connections to come; without any, the source has failed."""
        left = [symbol for symbol in self._request.symbols if symbol != rejected.symbol]
        if not left:
            events.append(Failed(f"{rejected.symbol}: {rejected.reason}"))
        self._request = replace(self._request, symbols=left)
