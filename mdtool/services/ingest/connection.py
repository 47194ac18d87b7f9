"""One client's connection to the ingest server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from typing import Final

import numpy as np

from mdtool.core.errors import MdtoolError, PeerError
from mdtool.core.tcp import peer_name
from mdtool.core.trades import REASONS, Frames, Reason, reasons_text
from mdtool.services.client import Admission, Client, ClientLog
from mdtool.services.ingest.intake import Intake, Stream
from mdtool.services.limits import LimitError
from mdtool.services.security import writable
from mdtool.wire.frames import encode_ack, encode_committed, encode_resume
from mdtool.wire.tick_decoder import Decoded, FrameError, TickDecoder

log = logging.getLogger(__name__)

CROWDED_READ_BYTES: Final = 4_096
"""The most that a connection reads while there is no room."""
_LINGER_S: Final = 2.0
"""How long what a rejected client still sends is read: unread, it would end the connection at once,
before the client has read why."""
_FORBIDDEN: Final = "ticks: of symbols that none of your roles may write"
_MAX_DETAILS: Final = 3
"""How many of a connection's refusals are logged one by one."""


class Connections:
    """The connections of one server, which it stops together.

    Parameters
    ----------
    admission : Admission
        Of the server.
    """

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self._open: set[Connection] = set()
        self._all_gone = asyncio.Event()
        self._all_gone.set()

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._open))

    def add(self, connection: Connection) -> None:
        """Add a connection that is made."""
        self._open.add(connection)
        self._all_gone.clear()

    def remove(self, connection: Connection) -> None:
        """Remove a connection that is lost."""
        self._open.discard(connection)
        if not self._open:
            self._all_gone.set()

    async def gone(self) -> None:
        """Wait until all are closed."""
        await self._all_gone.wait()


class Connection(asyncio.BufferedProtocol):
    """Takes the frames of one client into the intake, and replies to the client.

    Parameters
    ----------
    intake : Intake
        Where its frames go. While it has no room, nothing is read.
    decoder : TickDecoder
        The connection's own, over the symbols that all connections share.
    buffer : memoryview
        What it receives into, shared by all connections: asyncio asks for the buffer, receives and
        reports in one step.
    tasks : asyncio.TaskGroup
        Owns the tasks in which the connection waits.
    connections : Connections
        Those of the server, which it joins while it is open.
    """

    def __init__(
        self,
        intake: Intake,
        decoder: TickDecoder,
        buffer: memoryview,
        tasks: asyncio.TaskGroup,
        connections: Connections,
    ) -> None:
        self._intake = intake
        self._decoder = decoder
        self._buffer = buffer
        self._tasks = tasks
        self._connections = connections
        self._admitted = contextlib.ExitStack()
        self._stream = intake.shared
        self._stream_id = ""
        self._client: Client
        self._log: ClientLog
        self._tally = _Tally()
        self._details_left = _MAX_DETAILS
        self._transport: asyncio.Transport
        self._task: asyncio.Task[None] | None = None
        self._name = "client"
        self._is_stopped = False
        self._has_ended = False
        self._is_rejected = False
        self._is_writable = True
        self._unreported: int | None = None
        """A Committed that waits until the client reads again."""

    def __str__(self) -> str:
        return f"{self._name} ({self._stream_id})" if self._stream_id else self._name

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start reading."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)
        self._client = self._connections.admission.peer(transport)
        self._log = ClientLog(log, self._client)
        self._decoder.may_write = self._may_write
        self._decoder.needs_token = self._client.needs_token
        self._name = peer_name(transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        admitted = self._client.connected("ticks", lambda _code, reason: self._refuse(reason))
        try:
            self._admitted.enter_context(admitted)
        except LimitError as error:
            self._refuse(f"{error}; try again later")
            return
        self._log.debug("%s: connected", self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio always asks for -1
        """Return the buffer, or a small part of it while there is no room in the intake."""
        return self._buffer if self._intake.has_room else self._buffer[:CROWDED_READ_BYTES]

    def buffer_updated(self, nbytes: int) -> None:
        """Decode what has arrived, and publish its frames."""
        is_over_quota = self._client.spend_bytes(nbytes) > 0
        self._feed(self._buffer[:nbytes])
        if is_over_quota and self._task is None:  # which reads on once it is done
            self._transport.pause_reading()
            self._resume_reading()

    def _feed(self, data: bytes | memoryview) -> None:
        if self._has_ended:
            return
        try:
            decoded = self._decoder.feed(data, time.time_ns())
        except FrameError as error:
            if error.decoded.hello is None:
                self._receive(error.decoded)
            self._refuse(str(error))
        else:
            self._receive(decoded)

    def eof_received(self) -> bool:
        """Answer the client, which has sent everything, and keep the connection open for that.

        TLS closes it now, whatever is returned: its clients end with an End.
        """
        is_half_closed = self._transport.can_write_eof()
        if is_half_closed and not self._has_ended:
            self._end()
        return is_half_closed and not self._is_rejected

    def pause_writing(self) -> None:
        """Hold back Committed frames."""
        self._is_writable = False

    def resume_writing(self) -> None:
        """Send the latest Committed that was held back."""
        self._is_writable = True
        # Not here: asyncio reports a connection that ends within this call as lost twice.
        asyncio.get_running_loop().call_soon(self._report)

    def _report(self) -> None:
        unreported, self._unreported = self._unreported, None
        if unreported is not None and not self._transport.is_closing():
            self.committed(unreported)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the client's stream; the frames that it sent are on their way."""
        if self._task is not None:
            self._task.cancel()
        self._leave()
        if exc is not None and self._decoder.pending_bytes and not self._is_rejected:
            self._log.warning("%s: disconnected in the middle of a frame (%s)", self, exc)
        if self._tally.refused:
            self._log.warning("%s: %s", self, self._tally)
        self._log.debug("%s: disconnected (%s)", self, exc or "closed")
        self._admitted.close()
        self._connections.remove(self)

    # What the intake calls.

    def committed(self, next_sequence: int) -> None:
        """Send the client how far its stream is committed."""
        if self._stream is self._intake.shared:
            return  # its Resume, sent later, includes that
        if self._is_writable:
            self._transport.write(encode_committed(next_sequence))
        else:
            self._unreported = next_sequence

    def replaced(self) -> None:
        """Close: another connection has opened the same stream."""
        self._refuse(f"another connection has opened stream {self._stream_id!r}")

    # What the server calls.

    def stop(self) -> None:
        """Stop reading."""
        self._is_stopped = True
        self._transport.pause_reading()

    def close(self) -> None:
        """Close; a client that cannot resume is sent a summary of its ticks."""
        if self._transport.is_closing():
            return
        if self._stream_id or self._is_rejected:
            self._transport.close()
        else:
            committed = "all" if self._intake.shared.is_settled else "not all"
            self._refuse(f"{self._tally}, {committed} of them committed; the server stops")

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _receive(self, decoded: Decoded) -> None:
        if decoded.hello is not None:
            self._stream_id = decoded.hello
            self._transport.pause_reading()
            self._task = self._tasks.create_task(self._open(decoded.frames, decoded.token))
        elif decoded.frames.count:
            self._publish(self._stream, decoded.frames)
        for detail in decoded.details[: self._details_left]:
            self._details_left -= 1
            self._log.warning("%s: refused a tick: %s", self, detail)
        if decoded.token is not None and decoded.hello is None:
            self._begin_authenticating(decoded.token)
        if decoded.has_ended:
            self._has_ended = True
            if decoded.hello is None:  # else once the stream is open
                self._end()

    def _begin_authenticating(self, token: str) -> None:
        self._transport.pause_reading()
        self._task = self._tasks.create_task(self._authenticate(token))

    async def _authenticate(self, token: str) -> None:
        """Authenticate the client, and decode what came behind its token."""
        try:
            await self._client.authenticate_now(token)
        except MdtoolError as error:
            self._refuse(str(error))
            return
        self._task = None
        self._resume_reading()
        if not (self._is_stopped or self._transport.is_closing()):
            self._feed(b"")

    def _may_write(self, symbol: str) -> bool:
        return self._client.principal.access.can_write(symbol)

    def _writable(self, frames: Frames, stream_id: str) -> Frames:
        """Refuse the trades of symbols that the client may not write.

        Also probes of a stream with such a name: readers get them as states of that symbol.
        """
        permitted = writable(frames, self._decoder.symbols, self._client.principal.access)
        if not self._may_write(stream_id):
            permitted = permitted.refuse_probes(Reason.SYMBOL)
        forbidden = int((permitted.refusals() - frames.refusals()).sum())
        if forbidden and not self._tally.forbidden and self._client.security is not None:
            self._client.security.note(self._client, "send ticks", _FORBIDDEN)
        self._tally.forbidden += forbidden
        return permitted

    def _publish(self, stream: Stream, frames: Frames) -> None:
        frames = self._writable(frames, stream.stream_id)
        self._tally.add(frames)
        self._intake.publish(stream, frames)
        if not self._intake.has_room:
            self._transport.pause_reading()
            self._intake.when_room(self._resume_reading)
        if self._client.spend_ticks(frames.count):
            self._transport.pause_reading()
            self._resume_reading()

    async def _open(self, frames: Frames, token: str | None) -> None:
        """Answer a Hello; `frames` came behind it and are numbered from the answer on.

        A token, which came behind these, is checked at the end.
        """
        try:
            principal = self._client.principal.name if self._client.security is not None else ""
            self._stream = await self._intake.open(self._stream_id, self, principal)
        except PeerError as error:
            self._refuse(str(error))
            return
        if self._is_stopped:
            return
        level = logging.INFO if self._stream.taken else logging.DEBUG
        self._log.log(level, "%s: resumes at %d", self, self._stream.taken)
        self._task = None
        self._transport.write(encode_resume(self._stream.taken))
        self._resume_reading()
        if frames.count:
            self._publish(self._stream, frames)
        if token is not None:
            self._begin_authenticating(token)
        elif self._has_ended:
            self._end()

    def _end(self) -> None:
        self._has_ended = True
        self._task = self._tasks.create_task(self._finish())

    def _resume_reading(self) -> None:
        """Read on, at once or when the client's quotas allow that."""
        if self._is_stopped or self._transport.is_closing():
            return
        if wait_s := max(self._client.spend_ticks(0), self._client.spend_bytes(0)):
            asyncio.get_running_loop().call_later(wait_s, self._resume_reading)
        else:
            self._transport.resume_reading()

    async def _finish(self) -> None:
        await self._stream.settled()
        text = str(self._tally)
        if self._stream_id:
            text += f"; stream {self._stream_id!r} is committed up to {self._stream.committed}"
        if unfinished_bytes := self._decoder.pending_bytes:
            text += f"; {unfinished_bytes} bytes of an unfinished frame were discarded"
            self._log.warning("%s: %s", self, text)
        self._transport.write(encode_ack(not unfinished_bytes, text))
        self._transport.close()

    def _refuse(self, reason: str) -> None:
        if self._is_rejected:
            return
        self._is_rejected = self._has_ended = True
        self._log.warning("%s: closed: %s", self, reason)
        if self._task is not None:
            self._task.cancel()
        self._leave()
        self._transport.write(encode_ack(False, reason))
        if self._is_stopped or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()
        self._transport.resume_reading()
        timer = asyncio.get_running_loop().call_later(_LINGER_S, self._transport.close)
        self._admitted.callback(timer.cancel)

    def _leave(self) -> None:
        """Release the stream: nothing more of it is taken, and nothing is reported."""
        if self._stream_id:
            self._intake.leave(self._stream_id, self)
        self._stream = self._intake.shared


class _Tally:
    """How many ticks a connection sent, and why some of them were refused."""

    __slots__ = ("_refused", "accepted", "forbidden")

    def __init__(self) -> None:
        self.accepted = 0
        self.forbidden = 0
        """Of symbols that the client may not write."""
        self._refused = np.zeros(REASONS, np.int64)

    @property
    def refused(self) -> int:
        """How many ticks were refused."""
        return int(self._refused.sum())

    def add(self, frames: Frames) -> None:
        """Count frames."""
        self.accepted += len(frames.trades)
        if len(frames.refused_reason):
            self._refused += frames.refusals()

    def __str__(self) -> str:
        text = f"Accepted {self.accepted} tick{'s' * (self.accepted != 1)}, refused {self.refused}"
        if self.refused:
            text += f" ({reasons_text(self._refused)})"
        return f"{text}; {self.forbidden} without permission" if self.forbidden else text
