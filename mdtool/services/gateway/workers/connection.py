"""The messages between a gateway's workers and their coordinator, over a Unix socket."""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

MAX_UNSENT_BYTES: Final = 1 << 26
"""A connection is closed when its other end leaves more unread."""
_READ_BYTES: Final = 1 << 17
_MAX_DESCRIPTORS: Final = 64
_LENGTHS: Final = struct.Struct(">II")


@dataclass(slots=True)
class Message:
    """What one process sends to another.

    Attributes
    ----------
    op : str
        What it is.
    head : dict
        Its members, as JSON has them.
    body : bytes
    descriptor : int or None
        An open file that goes with it. Whoever receives the message closes it.
    """

    op: str
    head: dict[str, Any] = field(default_factory=dict)
    body: bytes = b""
    descriptor: int | None = None


class MessageDecoder:
    """Cuts bytes that arrive in pieces of any size into messages."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._descriptors: deque[int] = deque()

    def feed(self, data: bytes, descriptors: list[int]) -> list[Message]:
        """Return the messages that are complete.

        Parameters
        ----------
        data : bytes
        descriptors : list of int
            Those that arrived with the data, in the order of their messages.
        """
        self._data += data
        self._descriptors += descriptors
        messages = []
        while len(self._data) >= _LENGTHS.size:
            head_bytes, body_bytes = _LENGTHS.unpack_from(self._data)
            body_at = _LENGTHS.size + head_bytes
            end = body_at + body_bytes
            if len(self._data) < end:
                break
            head = json.loads(self._data[_LENGTHS.size : body_at])
            descriptor = self._descriptors.popleft() if head.pop("has_descriptor", False) else None
            body = bytes(self._data[body_at:end])
            messages.append(Message(head.pop("op"), head, body, descriptor))
            del self._data[:end]
        return messages

    def close(self) -> None:
        """Close what arrived with incomplete messages."""
        while self._descriptors:
            os.close(self._descriptors.popleft())


def encode_message(message: Message) -> bytes:
    """Return the bytes of a message, which its descriptor goes with."""
    head: dict[str, Any] = {"op": message.op, **message.head}
    if message.descriptor is not None:
        head["has_descriptor"] = True
    encoded = json.dumps(head, separators=(",", ":")).encode()
    return _LENGTHS.pack(len(encoded), len(message.body)) + encoded + message.body


class WorkerConnection:
    """One end of a connection that carries messages, and open files with them.

    Asyncio's transports carry no files, so that this reads and writes the socket itself.

    Parameters
    ----------
    connected : socket.socket
        A connected Unix socket, which is closed with it.
    receive : callable
        Called with each message.
    lost : callable
        Called once when the other end has closed, or reads too little.
    """

    def __init__(
        self,
        connected: socket.socket,
        receive: Callable[[Message], None],
        lost: Callable[[], None],
    ) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._receive = receive
        self._lost = lost
        self._decoder = MessageDecoder()
        self._unsent: deque[tuple[memoryview, int | None]] = deque()
        self._unsent_bytes = 0
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connected, self._read)

    def send(self, message: Message) -> None:
        """Send a message, now or once the other end reads; its descriptor stays the caller's."""
        if self._is_closed:
            return
        data = memoryview(encode_message(message))
        descriptor = None if message.descriptor is None else os.dup(message.descriptor)
        self._unsent.append((data, descriptor))
        self._unsent_bytes += len(data)
        if len(self._unsent) == 1:
            self._write()
        if self._unsent_bytes > MAX_UNSENT_BYTES:
            self._lose()

    def close(self) -> None:
        """Close this end."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        for _, descriptor in self._unsent:
            if descriptor is not None:
                os.close(descriptor)
        self._unsent.clear()
        self._decoder.close()
        self._socket.close()

    def _read(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, _READ_BYTES, _MAX_DESCRIPTORS)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._lose()
            return
        for message in self._decoder.feed(data, descriptors):
            self._receive(message)

    def _write(self) -> None:
        while self._unsent:
            data, descriptor = self._unsent[0]
            files = [] if descriptor is None else [_rights(descriptor)]
            try:
                sent = self._socket.sendmsg([data], files)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self._lose()
                return
            if descriptor is not None:
                os.close(descriptor)
            self._unsent_bytes -= sent
            if sent < len(data):
                self._unsent[0] = data[sent:], None
            else:
                self._unsent.popleft()
        if self._unsent:
            self._loop.add_writer(self._socket, self._write)
        else:
            self._loop.remove_writer(self._socket)

    def _lose(self) -> None:
        if not self._is_closed:
            self.close()
            self._lost()


def _rights(descriptor: int) -> tuple[int, int, array.array[int]]:
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor])


def connect(path: str) -> socket.socket:
    """Return a connection to a coordinator.

    Raises
    ------
    OSError
        When it does not listen any more.
    """
    connection = socket.socket(socket.AF_UNIX)
    with contextlib.ExitStack() as stack:
        stack.callback(connection.close)
        connection.connect(path)
        stack.pop_all()
    return connection
