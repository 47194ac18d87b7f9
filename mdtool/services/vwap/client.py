"""One connection of the VWAP feed: what it asked for, and what it is told as far as it reads."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable
from typing import Final, Protocol, cast

from mdtool.core.addresses import format_address
from mdtool.core.tcp import notice_loss
from mdtool.wire.vwap_lines import (
    MAX_LINE_BYTES,
    LineError,
    encode_error,
    parse_subscribe,
)

log = logging.getLogger(__name__)

_SEND_BUFFER_BYTES: Final = 1 << 16
"""What the system keeps for a client that is behind: by default, megabytes of the past."""


class States(Protocol):
    """Where a client's lines come from, and who has to know what it wants."""

    patience_s: float

    def connect(self, client: Client) -> bool:
        """Take the client, which wants all symbols; return False where there is no room."""
        ...

    def narrow(self, client: Client, wanted: frozenset[str] | None) -> None:
        """Take note that the client wants these symbols from now on, None for all."""
        ...

    def disconnect(self, client: Client) -> None:
        """Forget the client."""
        ...

    def lines(self, symbols: Iterable[str] | None) -> bytes:
        """Return the last states of symbols, None for all, a line each."""
        ...


class Client(asyncio.Protocol):
    """A client, which is told states in lines and may send SUBSCRIBE lines.

    What it does not read at once is not kept: only which symbols have changed since, and of these
    it gets the last states once it has read what was written before.

    Attributes
    ----------
    wanted : frozenset of str or None
        The symbols it asked for, None for all.
    """

    def __init__(self, states: States) -> None:
        self.wanted: frozenset[str] | None = None
        self._states = states
        self._transport: asyncio.Transport
        self._name = ""
        self._is_connected = False
        self._is_behind = False
        self._has_asked = False
        self._missed: dict[str, None] = {}
        self._received = b""
        self._is_skipping = False
        self._look: asyncio.TimerHandle | None = None
        self._unread_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Tell all states there are."""
        self._transport = cast("asyncio.Transport", transport)
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        notice_loss(connection)
        # One that has gone already has no name any more.
        peer = transport.get_extra_info("peername") or ("?", 0)
        self._name = format_address(*peer[:2])
        self._transport.set_write_buffer_limits(high=0)
        self._is_connected = self._states.connect(self)
        if self._is_connected:
            self._transport.write(self._states.lines(None))
        else:
            log.warning("client %s: refused, there are as many as there may be", self._name)
            self._transport.write(encode_error("too many clients; try again later"))
            self._transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        """Forget everything."""
        self._is_behind = True
        self._cancel_look()
        if self._is_connected:
            self._is_connected = False
            self._states.disconnect(self)

    def eof_received(self) -> bool:
        """Go on where something was asked: who has no more to ask may still read."""
        return self._has_asked

    def tell(self, lines: bytes, symbols: Iterable[str]) -> None:
        """Tell the last states of symbols, given as lines too, now or when there is room."""
        if self._is_behind or self._transport.is_closing():
            self._missed.update(dict.fromkeys(symbols))
        else:
            self._transport.write(lines)

    def close(self) -> None:
        """Close the connection, at once where what was written is not read."""
        if self._is_behind:
            self._transport.abort()
        else:
            self._transport.close()

    def pause_writing(self) -> None:
        """Write and read no more until all is read that was written."""
        self._is_behind = True
        if self._is_connected:
            self._transport.pause_reading()
            self._watch()

    def resume_writing(self) -> None:
        """Tell what was missed."""
        self._is_behind = False
        self._cancel_look()
        if not self._is_connected or self._transport.is_closing():
            return
        self._transport.resume_reading()
        missed, self._missed = self._missed, {}
        if self.wanted is not None:
            missed = {symbol: None for symbol in missed if symbol in self.wanted}
        if missed:
            self._transport.write(self._states.lines(missed))
        self._obey()

    def data_received(self, data: bytes) -> None:
        """Obey whole lines."""
        self._received += data
        self._obey()

    def _obey(self) -> None:
        """Answer the whole lines there are, as long as answers are read."""
        at = 0
        while not self._is_behind and not self._transport.is_closing():
            end = self._received.find(b"\n", at)
            if end < 0:
                break
            line, at = self._received[at:end], end + 1
            if self._is_skipping:
                self._is_skipping = False
            elif len(line) > MAX_LINE_BYTES:
                self._complain()
            elif line.strip():
                self._answer(line)
        self._received = self._received[at:]
        if not self._is_behind and len(self._received) > MAX_LINE_BYTES:
            if not self._is_skipping:
                self._complain()
            self._is_skipping = True
            self._received = b""

    def _complain(self) -> None:
        self._transport.write(encode_error(f"a line is over {MAX_LINE_BYTES:,} bytes"))

    def _answer(self, line: bytes) -> None:
        try:
            wanted = parse_subscribe(line)
        except LineError as error:
            self._transport.write(encode_error(str(error)))
            return
        self._has_asked = True
        self._states.narrow(self, wanted)
        self.wanted = wanted
        self._missed.clear()
        self._transport.write(self._states.lines(wanted and sorted(wanted)))

    def _watch(self) -> None:
        """Look after a while whether anything was read."""
        self._unread_bytes = self._transport.get_write_buffer_size()
        loop = asyncio.get_running_loop()
        self._look = loop.call_later(self._states.patience_s, self._give_up_or_wait)

    def _give_up_or_wait(self) -> None:
        if self._transport.get_write_buffer_size() < self._unread_bytes:
            self._watch()
            return
        log.warning(
            "client %s: closed, for it has read nothing for %g s",
            self._name,
            self._states.patience_s,
        )
        self._transport.abort()

    def _cancel_look(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
