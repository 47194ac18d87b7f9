"""The coordinator of a gateway's workers: it relays their messages, and has the signaling rooms."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from mdtool.core.descriptors import PAUSE_S, is_shortage, shortage
from mdtool.core.errors import MdtoolError
from mdtool.services.gateway.protocols.signaling import Rooms
from mdtool.services.gateway.protocols.stomp import Dialect, Wrapping
from mdtool.services.gateway.workers.connection import Message, WorkerConnection
from mdtool.wire.stomp import Version

log = logging.getLogger(__name__)

MAX_WAITING: Final = 1_000
"""Connections that wait for a worker that is restarted; more are closed."""
_FIRST_NUMBER: Final = 1 << 48
"""Of messages from rooms: workers count theirs from 1."""
_BACKLOG: Final = 64


class Coordinator:
    """Knows the workers of a gateway that run, by their numbers.

    What a worker sends goes to the worker that the message names in `to`, or to all others, or is
    for the rooms: those are here, so that all workers' clients get signals in one order, and stay
    in their rooms when a worker ends.

    Parameters
    ----------
    max_listeners : int
        Of one signaling room.
    """

    def __init__(self, max_listeners: int) -> None:
        number = itertools.count(_FIRST_NUMBER).__next__
        self._rooms = Rooms(max_listeners, number=number)
        self._connections: dict[int, WorkerConnection] = {}
        self._clients: dict[int, _Clients] = {}
        self._waiting: defaultdict[int, list[Message]] = defaultdict(list)

    @contextlib.contextmanager
    def listening(self, path: str) -> Iterator[None]:
        """Accept workers at a Unix socket within the block."""
        loop = asyncio.get_running_loop()
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
            listener.setblocking(False)
            listener.bind(path)
            listener.listen(_BACKLOG)
            loop.add_reader(listener, self._accept, listener)
            try:
                yield
            finally:
                loop.remove_reader(listener)
                for connection in self._connections.values():
                    connection.close()
                for messages in self._waiting.values():
                    for message in messages:
                        _drop(message)

    def _accept(self, listener: socket.socket) -> None:
        try:
            _Arrival(self, listener.accept()[0])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if not is_shortage(error):
                raise
            shortage.note("gateway: workers", error)
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            loop.call_later(PAUSE_S, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:  # it may be closed meanwhile
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def join(self, worker: int, connection: WorkerConnection) -> None:
        """Have a worker take part."""
        if worker in self._connections:  # its successor is faster than the news of its end
            self._connections[worker].close()
            self.leave(worker)
        for other, other_connection in list(self._connections.items()):
            other_connection.send(Message("joined", {"worker": worker}))
            connection.send(Message("joined", {"worker": other}))
        self._connections[worker] = connection
        self._clients[worker] = _Clients()
        for message in self._waiting.pop(worker, ()):
            connection.send(message)
            _drop(message)

    def leave(self, worker: int) -> None:
        """Drop a worker that has ended: its clients leave their rooms."""
        del self._connections[worker]
        clients = self._clients.pop(worker)
        for leave in clients.members.values():
            leave()
        for client in clients.by_name.values():
            self._rooms.forget(client)
        for connection in list(self._connections.values()):  # one that is lost leaves meanwhile
            connection.send(Message("left", {"worker": worker}))

    def receive(self, worker: int, message: Message) -> None:
        """Relay a message of a worker, or apply it to the rooms."""
        message.head["from"] = worker
        if "to" in message.head:
            self._send(message.head["to"], message)
        elif message.op in {"follow", "leave", "signal", "forget"}:
            self._apply(worker, message)
        else:
            for other, connection in list(self._connections.items()):
                if other != worker:
                    connection.send(message)

    def _send(self, to: int, message: Message) -> None:
        if connection := self._connections.get(to):
            connection.send(message)
        elif message.op == "connection" and len(self._waiting[to]) < MAX_WAITING:
            self._waiting[to].append(message)
            return
        _drop(message)

    def _apply(self, worker: int, message: Message) -> None:
        head, clients, connection = message.head, self._clients[worker], self._connections[worker]
        if message.op == "leave":
            clients.members.pop(head["member"], _nothing)()
            return
        name = head["client"]
        if message.op == "forget":
            if client := clients.by_name.pop(name, None):
                self._rooms.forget(client)
            return
        client = clients.by_name.setdefault(name, _Client(name))
        try:
            if message.op == "follow":
                dialect = Dialect(Wrapping(head["wrapping"]), Version(head["version"]))
                member = _Member(client, dialect, connection, head["member"])
                clients.members[head["member"]] = self._rooms.follow(head["room"], member)
            else:
                self._rooms.send(head["room"], client, message.body)
        except MdtoolError as error:
            connection.send(Message("reject", {"client": name, "reason": str(error)}))


class _Arrival:
    """A connection whose first message says which worker it is."""

    def __init__(self, coordinator: Coordinator, connection: socket.socket) -> None:
        self._coordinator = coordinator
        self._worker: int | None = None
        self._connection = WorkerConnection(connection, self._receive, self._lost)

    def _receive(self, message: Message) -> None:
        if self._worker is None:
            self._worker = message.head["worker"]
            self._coordinator.join(self._worker, self._connection)
        else:
            self._coordinator.receive(self._worker, message)

    def _lost(self) -> None:
        if self._worker is not None:
            self._coordinator.leave(self._worker)


@dataclass(frozen=True, eq=False, slots=True)
class _Client:
    """A client of a worker."""

    name: str


@dataclass(frozen=True, eq=False, slots=True)
class _Member:
    """A subscription of such a client to a room."""

    connection: _Client
    dialect: Dialect
    worker: WorkerConnection
    number: int

    def post(self, message: bytes) -> None:
        """Have its worker write a message."""
        self.worker.send(Message("post", {"member": self.number}, message))


@dataclass(slots=True)
class _Clients:
    """A worker's clients, and what ends their subscriptions."""

    by_name: dict[str, _Client] = field(default_factory=dict)
    members: dict[int, Callable[[], None]] = field(default_factory=dict)


def _nothing() -> None:
    """End a subscription that was rejected."""


def _drop(message: Message) -> None:
    if message.descriptor is not None:
        os.close(message.descriptor)
