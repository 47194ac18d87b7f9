"""The connections of the VWAP feed: each state is encoded once, and slow clients are conflated."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterable
from itertools import islice
from typing import Final, cast

from mdtool.adapters.identity.errors import TokenError, UnknownKeyError
from mdtool.core.permissions import ForbiddenError, Reader
from mdtool.core.tcp import notice_loss, pause_when_behind, peer_name
from mdtool.core.tls import is_tls
from mdtool.core.trades import Probe
from mdtool.services.client import Admission, Client, ClientLog
from mdtool.services.limits import CapacityError, LimitError
from mdtool.services.vwap.states import STATES_AT_ONCE, States
from mdtool.wire.proxy_header import UNEXPECTED, is_header
from mdtool.wire.vwap_lines import (
    MAX_LINE_BYTES,
    LineError,
    encode_error,
    encode_state,
    parse_auth,
    parse_subscribe,
    probe_state,
)
from mdtool.wire.websocket import CloseCode

log = logging.getLogger(__name__)

_FEED: Final = "vwap"
"""The feed whose readers may connect."""
_SEND_BUFFER_BYTES: Final = 1 << 16
"""The system's buffer of a slow client, by default megabytes of old states."""


class Connections:
    """All connections, by the symbols that they subscribe to.

    Changes within one turn of the event loop are sent at its end, in one write a connection. Where
    there are so many connections that this takes a while, the next changes are collected for as
    long: they are then sent at once, and no client gets states that are long past.

    Parameters
    ----------
    states : States
    admission : Admission
        Of the service.
    patience_s : float
        How long a client may stop reading before its connection is closed.
    """

    def __init__(self, states: States, admission: Admission, patience_s: float) -> None:
        self.admission = admission
        self.patience_s = patience_s
        self._states = states
        self._to_all: dict[Reader | None, set[Connection]] = {}
        """By permission class."""
        self._by_symbol: dict[str, set[Connection]] = {}
        self._n_to_some = 0
        self._changed: dict[str, None] = {}
        self._rests_until_s = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._to_all.values())) + self._n_to_some

    def add(self, connection: Connection) -> None:
        """Add a connection, which gets all symbols that it may read."""
        self._to_all.setdefault(connection.reader, set()).add(connection)

    def remove(self, connection: Connection) -> None:
        """Remove a connection."""
        if connection.symbols is None:
            others = self._to_all[connection.reader]
            others.discard(connection)
            if not others:
                del self._to_all[connection.reader]
            return
        self._n_to_some -= 1
        for symbol in connection.symbols:
            subscribers = self._by_symbol[symbol]
            subscribers.discard(connection)
            if not subscribers:
                del self._by_symbol[symbol]

    def subscribe(self, connection: Connection, symbols: frozenset[str] | None) -> None:
        """Change the symbols of a connection to some that it may read, None for all of these."""
        self.remove(connection)
        if symbols is None:
            self.add(connection)
            return
        self._n_to_some += 1
        for symbol in symbols:
            self._by_symbol.setdefault(symbol, set()).add(connection)

    def symbols(self, reader: Reader | None) -> list[str]:
        """Return the symbols that have a state, and that a permission class may read."""
        return _readable(self._states.symbols(), reader)

    def lines(self, symbols: Iterable[str]) -> bytes:
        """Return the states of symbols, a line each."""
        return b"".join(map(self._states.line, symbols))

    def publish(self, symbols: Iterable[str]) -> None:
        """Send the states of symbols, which changed, to their subscribers."""
        if not len(self):
            return
        if not self._changed:
            loop = asyncio.get_running_loop()
            if self._rests_until_s > loop.time():
                loop.call_at(self._rests_until_s, self._deliver)
            else:
                loop.call_soon(self._deliver)
        self._changed.update(dict.fromkeys(symbols))

    def publish_probe(self, probe: Probe) -> None:
        """Send a probe to the subscribers of its stream's id, who read it as a symbol's state."""
        for connection in self._by_symbol.get(probe.stream_id, ()):
            connection.send(encode_state(probe_state(probe)), ())

    def _deliver(self) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        changed, self._changed = self._changed, {}
        for reader, connections in [*self._to_all.items()]:
            symbols = _readable([*changed], reader)
            lines = self.lines(symbols)
            for connection in [*connections]:
                connection.send(lines, symbols)
        if self._n_to_some:
            self._deliver_to_some(changed)
        now_s = loop.time()
        self._rests_until_s = now_s + now_s - began_s

    def _deliver_to_some(self, changed: Iterable[str]) -> None:
        symbols_of: dict[Connection, list[str]] = {}
        for symbol in changed:
            for connection in self._by_symbol.get(symbol, ()):
                symbols_of.setdefault(connection, []).append(symbol)
        for connection, symbols in symbols_of.items():
            connection.send(self.lines(symbols), symbols)


def _readable(symbols: list[str], reader: Reader | None) -> list[str]:
    return symbols if reader is None else [*filter(reader.can_read, symbols)]


class Connection(asyncio.Protocol):
    """A client's connection, which gets states as lines, and may send AUTH and SUBSCRIBE lines.

    States that a client does not read at once are conflated: only the symbols that changed are
    stored, and their latest states are sent once everything written before is read.

    Attributes
    ----------
    symbols : frozenset of str or None
        The symbols that it subscribes to, None for all.
    reader : Reader or None
        What it may read, None for everything.
    """

    def __init__(self, connections: Connections) -> None:
        self.symbols: frozenset[str] | None = None
        self.reader: Reader | None = None
        self._client: Client
        self._authenticating: asyncio.Task[None] | None = None
        self._connections = connections
        self._transport: asyncio.Transport
        self._name = ""
        self._admitted = contextlib.ExitStack()
        self._is_connected = False
        self._is_behind = False
        self._is_over_quota = False
        self._has_subscribed = False
        self._missed: dict[str, None] = {}
        self._is_catching_up = False
        self._received = b""
        self._is_skipping = False
        self._next_check: asyncio.TimerHandle | None = None
        self._unread_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send all states, where the client may read them without a token."""
        self._transport = cast("asyncio.Transport", transport)
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        notice_loss(connection)
        self._name = peer_name(transport)
        pause_when_behind(self._transport)
        self._client = self._connections.admission.peer(transport)
        try:
            self._admitted.enter_context(self._client.connected("vwap", self._close_for))
        except (CapacityError, LimitError) as error:
            log.warning("client %s: rejected: %s", self._name, error)
            why = "too many clients" if isinstance(error, CapacityError) else error
            self._reject(f"{why}; try again later")
            return
        if not self._client.needs_token and self._has_feed:
            self._join()

    @property
    def _has_feed(self) -> bool:
        return self._client.principal.access.has_feed(_FEED)

    def _join(self) -> None:
        """Send all states that the client may read, and from now on what changes."""
        if self._is_connected:
            self._connections.remove(self)
        self.symbols = None
        self.reader = self._client.principal.access.reader(_FEED)
        self._is_connected = True
        self._connections.add(self)
        self._missed.clear()
        self._catch_up(self._connections.symbols(self.reader))

    def _close_for(self, code: int, reason: str) -> None:
        """Close the connection; a client whose token has ended is told so."""
        if code == CloseCode.UNAUTHORIZED and not self._is_behind:
            self._transport.write(encode_error(reason))
        self.close()

    def connection_lost(self, _error: Exception | None) -> None:
        """Remove the connection."""
        self._is_behind = True
        self._cancel_check()
        if self._authenticating is not None:
            self._authenticating.cancel()
        self._admitted.close()
        if self._is_connected:
            self._is_connected = False
            self._connections.remove(self)

    def eof_received(self) -> bool:
        """Stay open after a subscription: a client that sends no more may still read."""
        if not self._transport.can_write_eof():  # TLS, which closes now whatever is returned
            return False
        return self._has_subscribed or self._authenticating is not None

    def send(self, lines: bytes, symbols: Iterable[str]) -> None:
        """Send the states of symbols, which are also given as lines, now or conflated later."""
        if self._is_behind or self._is_over_quota or self._transport.is_closing():
            self._missed.update(dict.fromkeys(symbols))
        else:
            self._write(lines)

    def _write(self, lines: bytes) -> None:
        self._transport.write(lines)
        self._spend(len(lines))

    def _spend(self, passed: int) -> None:
        """Count bytes, and hold back what follows them as long as the client's quota says."""
        if not self._client.is_metered:
            return
        wait_s = self._client.spend_bytes(passed)
        if wait_s and not self._is_over_quota:
            self._is_over_quota = True
            asyncio.get_running_loop().call_later(wait_s, self._continue)

    def _continue(self) -> None:
        """Handle and send what the quota of the client has held back."""
        self._is_over_quota = False
        if self._is_behind or self._transport.is_closing():
            return
        self._transport.resume_reading()
        self._handle_lines()
        self._write_missed()

    def close(self) -> None:
        """Close the connection, at once if the client has stopped reading."""
        if self._is_behind:
            self._transport.abort()
        else:
            self._transport.close()

    def pause_writing(self) -> None:
        """Write and read no more until everything that was written is read."""
        self._is_behind = True
        self._transport.pause_reading()
        self._schedule_check()

    def resume_writing(self) -> None:
        """Send the latest states of symbols that changed meanwhile."""
        self._is_behind = False
        self._cancel_check()
        # Not here: asyncio reports a connection that ends within this call as lost twice.
        asyncio.get_running_loop().call_soon(self._resume)

    def _resume(self) -> None:
        if self._is_behind or self._transport.is_closing():
            return
        if not self._is_over_quota:
            self._transport.resume_reading()
        missed, self._missed = self._missed, {}
        if self.symbols is not None:
            missed = {symbol: None for symbol in missed if symbol in self.symbols}
        self._catch_up(missed)
        self._handle_lines()

    def data_received(self, data: bytes) -> None:
        """Handle whole lines."""
        if not self._received and is_tls(data):
            self._client.report_tls(self._name)
            self._transport.abort()
            return
        if not self._received and is_header(data):
            log.warning("client %s: closed: %s", self._name, UNEXPECTED)
            self._transport.write(encode_error(UNEXPECTED))
            self._transport.close()
            return
        self._received += data
        self._spend(len(data))
        if self._is_over_quota:
            self._transport.pause_reading()
        self._handle_lines()

    def _handle_lines(self) -> None:
        """Answer the whole lines that were received, as long as the client reads the answers."""
        at = 0
        while self._may_handle:
            end = self._received.find(b"\n", at)
            if end < 0:
                break
            line, at = self._received[at:end], end + 1
            if self._is_skipping:
                self._is_skipping = False
            elif len(line) > MAX_LINE_BYTES:
                self._reject_long_line()
            elif line.strip():
                self._handle_line(line)
        self._received = self._received[at:]
        if not self._is_behind and len(self._received) > MAX_LINE_BYTES:
            if not self._is_skipping:
                self._reject_long_line()
            self._is_skipping = True
            self._received = b""

    @property
    def _may_handle(self) -> bool:
        is_waiting = self._is_behind or self._is_over_quota or self._authenticating is not None
        return not is_waiting and not self._transport.is_closing()

    def _reject_long_line(self) -> None:
        self._transport.write(encode_error(f"a line is over {MAX_LINE_BYTES:,} bytes"))

    def _authenticate(self, token: str) -> None:
        before = self._client.principal.name
        try:
            self._client.authenticate(token)
        except UnknownKeyError:
            task = asyncio.get_running_loop().create_task(self._authenticate_later(token))
            self._authenticating = task
        except (TokenError, LimitError) as error:
            self._reject(str(error))
        else:
            self._enter(before)

    async def _authenticate_later(self, token: str) -> None:
        """Authenticate once the issuer's keys are read again; lines wait meanwhile."""
        before = self._client.principal.name
        try:
            await self._client.authenticate_now(token)
        except (TokenError, LimitError) as error:
            self._reject(str(error))
        else:
            self._enter(before)
        finally:
            self._authenticating = None
        self._handle_lines()

    def _enter(self, before: str) -> None:
        """Join as the principal that the client has become, unless it is the one before."""
        if self._client.principal.name == before:
            return
        try:
            self._client.check_feed(_FEED)
        except ForbiddenError as error:
            self._reject(str(error))
        else:
            self._join()

    def _reject(self, reason: str) -> None:
        self._transport.write(encode_error(reason))
        self._transport.close()

    def _handle_line(self, line: bytes) -> None:
        token = parse_auth(line)
        if token is not None:
            self._authenticate(token)
            return
        if not self._is_connected:
            self._transport.write(encode_error("token: missing; send AUTH TOKEN first"))
            return
        try:
            symbols = parse_subscribe(line)
        except LineError as error:
            self._transport.write(encode_error(str(error)))
            return
        self._has_subscribed = True
        if symbols is not None and self.reader is not None:
            symbols = frozenset(filter(self.reader.can_read, symbols))
        self._connections.subscribe(self, symbols)
        self.symbols = symbols
        self._missed.clear()
        self._catch_up(
            self._connections.symbols(self.reader) if symbols is None else sorted(symbols)
        )

    def _catch_up(self, symbols: Iterable[str]) -> None:
        """Send the latest states of symbols: some now, the others in later turns of the loop."""
        self._missed.update(dict.fromkeys(symbols))
        if not self._is_catching_up:
            self._write_missed()

    def _write_missed(self) -> None:
        self._is_catching_up = False
        if self._is_behind or self._is_over_quota or self._transport.is_closing():
            return  # `resume_writing` or `_continue` does
        some = list(islice(self._missed, STATES_AT_ONCE))
        for symbol in some:
            del self._missed[symbol]
        if self._missed:
            self._is_catching_up = True
            asyncio.get_running_loop().call_soon(self._write_missed)
        if some:
            self._write(self._connections.lines(some))

    def _schedule_check(self) -> None:
        """Check after a while whether the client has read anything."""
        self._unread_bytes = self._transport.get_write_buffer_size()
        loop = asyncio.get_running_loop()
        self._next_check = loop.call_later(self._connections.patience_s, self._check)

    def _check(self) -> None:
        if self._transport.get_write_buffer_size() < self._unread_bytes:
            self._schedule_check()
            return
        ClientLog(log, self._client).warning(
            "client %s: closed: stopped reading for %g s", self._name, self._connections.patience_s
        )
        self._transport.abort()

    def _cancel_check(self) -> None:
        if self._next_check is not None:
            self._next_check.cancel()
            self._next_check = None
