"""What a worker of a gateway shares with the others: limits, rooms, sessions and measurements."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from aiohttp import web

from mdtool.adapters.identity.errors import TokenError
from mdtool.core.descriptors import is_shortage, shortage
from mdtool.core.errors import PeerError
from mdtool.core.permissions import Principal
from mdtool.services.gateway.protocols.signaling import Rooms
from mdtool.services.gateway.protocols.stomp import Connection, Member
from mdtool.services.gateway.workers.connection import Message, WorkerConnection, connect
from mdtool.services.gateway.workers.relay import RelayedTransport, Relays, peer_of
from mdtool.services.http.answers import Handler, failure
from mdtool.services.http.listening import HttpConnection
from mdtool.services.security import NO_TICKET, Security
from mdtool.services.usage import Usage

WORKER: Final = "MDTOOL_WORKER"
"""The variable by which a process is a worker: its number, and its coordinator's socket."""
_PATIENCE_S: Final = 1.0
"""How long other workers may take to answer; what they have is left out otherwise."""
_OWN_HEADERS: Final = frozenset({b"content-length", b"transfer-encoding", b"expect"})
"""Of a request, those that are written again when it is handed over."""

Adopt = Callable[[socket.socket, bytes, Mapping[str, Any] | None], Awaitable[None]]
"""Serves a connection, which has sent these bytes already; one that is relayed has a peer."""


@dataclass(frozen=True, slots=True)
class Place:
    """A worker's place among those of a gateway.

    Attributes
    ----------
    worker : int
        Its number, from 0.
    count : int
        How many there are.
    path : str
        The coordinator's socket.
    """

    worker: int
    count: int
    path: str

    def __str__(self) -> str:
        return f"{self.worker}:{self.count}:{self.path}"

    @classmethod
    def of_process(cls) -> Place | None:
        """Return this process's place, None where it is no worker.

        The variable is removed from the environment: the place belongs to this process alone.
        """
        text = os.environ.pop(WORKER, None)
        if text is None:
            return None
        worker, count, path = text.split(":", 2)
        return cls(int(worker), int(count), path)


class Peers:
    """The other workers. A context manager, in which messages are exchanged.

    Parameters
    ----------
    place : Place
    usage : Usage
        Of the limits that are shared.
    security : Security or None
        How clients authenticate.

    Attributes
    ----------
    rooms : SharedRooms
    others : set of int
        The numbers of the other workers that run.
    relays : Relays
        Of connections with TLS that other workers serve.
    """

    def __init__(self, place: Place, usage: Usage, security: Security | None) -> None:
        self.rooms = SharedRooms(self._send)
        self.others: set[int] = set()
        self.relays = Relays()
        self._place = place
        self._usage = usage
        self._security = security
        if self._security is not None:
            self._security.tickets.worker = place.worker
            self._security.tickets.elsewhere = self._redeem
        self._reports: dict[str, Callable[[], bytes]] = {}
        self._requests: dict[int, _Request] = {}
        self._numbers = itertools.count()
        self._adopt: Adopt | None = None
        self._adopting: set[asyncio.Task[None]] = set()
        self._lost = asyncio.Event()

    def __enter__(self) -> Self:
        self._connection = WorkerConnection(
            connect(self._place.path), self._receive, self._lost.set
        )
        self._connection.send(Message("hello", {"worker": self._place.worker}))
        self._usage.outlets.append(self._send_news)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._usage.outlets.remove(self._send_news)
        self._connection.close()

    async def run(self) -> None:
        """Wait until the connection to the coordinator is lost.

        Raises
        ------
        PeerError
            Then.
        """
        await self._lost.wait()
        raise PeerError("coordinator of the workers: connection lost")

    def report(self, what: str, make: Callable[[], bytes]) -> None:
        """Have `make` answer requests of other workers for something."""
        self._reports[what] = make

    async def request(self, what: str) -> Sequence[bytes]:
        """Return the answers of the other workers, of those that answer in time."""
        return await self._answers(Message("request", {"what": what}), set(self.others))

    async def _answers(self, message: Message, workers: set[int]) -> Sequence[bytes]:
        number = next(self._numbers)
        pending = self._requests[number] = _Request(workers)
        message.head["request"] = number
        self._send(message)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await pending.answered.wait()
        except TimeoutError:
            pass
        finally:
            del self._requests[number]
        return pending.answers

    async def _redeem(self, worker: int, ticket: str) -> Principal:
        """Return the principal of a ticket that another worker has issued; see Tickets."""
        answers: Sequence[bytes] = ()
        if worker in self.others:
            answers = await self._answers(
                Message("redeem", {"to": worker}, ticket.encode("utf-8", "replace")), {worker}
            )
        if not answers or not answers[0]:
            raise TokenError(NO_TICKET)
        return Principal.decode(answers[0])

    @contextlib.contextmanager
    def adopting(self, adopt: Adopt) -> Iterator[None]:
        """Have connections served that other workers hand over, within the block."""
        self._adopt = adopt
        try:
            yield
        finally:
            self._adopt = None

    def owned(self, name: str, handler: Handler) -> Handler:
        """Return a handler that answers requests at the worker that owns what they name.

        Parameters
        ----------
        name : str
            The part of the path that names it.
        handler : callable
        """

        async def run(request: web.Request) -> web.StreamResponse:
            owner = zlib.crc32(request.match_info[name].encode()) % self._place.count
            if owner == self._place.worker:
                return await handler(request)
            return await self._hand_over(request, owner)

        return run

    async def _hand_over(self, request: web.Request, owner: int) -> web.StreamResponse:
        """Have another worker serve a connection from this request on."""
        received = _encode_request(request, await request.read())
        try:
            await self._pass_on(request, owner, received)
        except OSError as error:
            if not is_shortage(error):
                raise
            shortage.note("gateway: workers", error)
            return failure(503, "unavailable", "no file descriptor is left; try again")
        return web.Response()  # cannot be written any more

    async def _pass_on(self, request: web.Request, owner: int, received: bytes) -> None:
        connection, transport = request.protocol, request.transport
        assert isinstance(connection, HttpConnection)
        if transport is None:
            return
        head: dict[str, Any] = {"to": owner}
        if transport.get_extra_info("sslcontext") is not None:
            head["peer"] = peer_of(transport)
            with await self.relays.begin(connection) as end:
                self._send(Message("connection", head, received, end.fileno()))
            return
        if isinstance(transport, RelayedTransport):
            head["peer"] = peer_of(transport)
        descriptor = transport.get_extra_info("socket").fileno()
        self._send(Message("connection", head, received, descriptor))
        # Closes this process's end of the connection alone, without a word to the client.
        transport.abort()

    def _send(self, message: Message) -> None:
        self._connection.send(message)

    def _send_news(self, news: Mapping[str, Any]) -> None:
        self._send(Message("news", {"news": news}))

    def _receive(self, message: Message) -> None:
        head = message.head
        if message.op == "news":
            self._usage.apply(_source(head["from"]), head["news"], is_worker=True)
        elif message.op == "joined":
            self.others.add(head["worker"])
            self._send(Message("news", {"to": head["worker"], "news": self._usage.held()}))
        elif message.op == "left":
            self._left(head["worker"])
        elif message.op == "request":
            answer = {"to": head["from"], "request": head["request"]}
            self._send(Message("answer", answer, self._reports[head["what"]]()))
        elif message.op == "redeem":
            answer = {"to": head["from"], "request": head["request"]}
            self._send(Message("answer", answer, self._redeemed(message.body.decode())))
        elif message.op == "answer":
            if pending := self._requests.get(head["request"]):
                pending.take(head["from"], message.body)
        elif message.op == "connection":
            self._receive_connection(message)
        else:
            self.rooms.receive(message)

    def _redeemed(self, ticket: str) -> bytes:
        """Return the principal of a ticket of this worker, nothing where there is none."""
        assert self._security is not None
        try:
            return self._security.tickets.redeem(ticket).encode()
        except TokenError:
            return b""

    def _left(self, worker: int) -> None:
        self.others.discard(worker)
        self._usage.forget(_source(worker))
        for pending in self._requests.values():
            pending.take(worker, None)

    def _receive_connection(self, message: Message) -> None:
        assert message.descriptor is not None
        connection = socket.socket(fileno=message.descriptor)
        connection.setblocking(False)
        if self._adopt is None:  # it stops
            connection.close()
            return
        adopting = self._adopt(connection, message.body, message.head.get("peer"))
        task = asyncio.ensure_future(adopting)
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)


class _Request:
    """A request to other workers, and their answers so far."""

    def __init__(self, expected: set[int]) -> None:
        self.answers: list[bytes] = []
        self.answered = asyncio.Event()
        self._expected = expected
        self._check()

    def take(self, worker: int, answer: bytes | None) -> None:
        """Take the answer of a worker, None where it has ended."""
        if worker in self._expected:
            self._expected.discard(worker)
            if answer is not None:
                self.answers.append(answer)
            self._check()

    def _check(self) -> None:
        if not self._expected:
            self.answered.set()


class SharedRooms:
    """The signaling rooms of all workers, which their coordinator has.

    Parameters
    ----------
    send : callable
        Sends the coordinator a message.
    """

    topic = Rooms.topic
    destination = Rooms.destination

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._numbers = itertools.count()
        self._members: dict[int, Member] = {}
        self._clients: dict[str, Connection] = {}

    def follow(self, name: str, member: Member) -> Callable[[], None]:
        """As `Relay.follow`; the client's session ends where it is rejected."""
        number = next(self._numbers)
        self._members[number] = member
        dialect = member.dialect
        head = self._head(member.connection, name)
        head |= {
            "member": number,
            "wrapping": dialect.wrapping.value,
            "version": dialect.version.value,
        }
        self._send(Message("follow", head))

        def leave() -> None:
            del self._members[number]
            self._send(Message("leave", {"member": number}))

        return leave

    def send(self, name: str, connection: Connection, body: bytes) -> None:
        """As `Relay.send`; the client's session ends where it is rejected."""
        self._send(Message("signal", self._head(connection, name), body))

    def forget(self, connection: Connection) -> None:
        """As `Relay.forget`."""
        if self._clients.pop(connection.name, None):
            self._send(Message("forget", {"client": connection.name}))

    def receive(self, message: Message) -> None:
        """Take a message of the coordinator."""
        head = message.head
        if message.op == "post":
            if member := self._members.get(head["member"]):
                member.post(message.body)
        elif connection := self._clients.get(head["client"]):
            connection.fail(head["reason"])

    def _head(self, connection: Connection, room: str) -> dict[str, Any]:
        self._clients[connection.name] = connection
        return {"client": connection.name, "room": room}


def _source(worker: int) -> str:
    return f"worker {worker}"


def _encode_request(request: web.Request, body: bytes) -> bytes:
    """Return a request as it is on the wire, with its body in one piece."""
    version = f"HTTP/{request.version.major}.{request.version.minor}"
    lines = [f"{request.method} {request.raw_path} {version}".encode()]
    lines += [
        b"%b: %b" % (name, value)
        for name, value in request.raw_headers
        if name.lower() not in _OWN_HEADERS
    ]
    lines.append(b"Content-Length: %d\r\n\r\n" % len(body))
    return b"\r\n".join(lines) + body
