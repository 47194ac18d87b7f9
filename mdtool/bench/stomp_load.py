"""Many STOMP clients in one process, each a bare socket that is read as fast as possible.

`stomp_clients` runs this module with the address and the path of a server, the number of clients, a
destination and the number of its updates, and the file to which the arrival times are written. It
prints a line once every client has the current state, and another once the file is written; the
clients stay connected until stdin ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.core.addresses import parse_address
from mdtool.core.descriptors import raise_file_limit
from mdtool.core.errors import PeerError
from mdtool.wire.stomp import encode

MODULE: Final = "mdtool.bench.stomp_load"
_VOLUME: Final = re.compile(rb'"volume":"(\d+)"')
_LONGEST_BYTES: Final = 40
"""The longest text of `_VOLUME`, which the end of the received bytes may cut."""
_LOST: Final = sys.maxsize
"""In place of the volume of a client that is disconnected."""
_SILENCE_S: Final = 30.0
"""How long the load waits for a further message."""
_BEAT_S: Final = 10.0
"""How often clients send heart-beats."""


@contextlib.asynccontextmanager
async def stomp_clients(
    address: str, path: str, clients: int, destination: str, updates: int
) -> AsyncIterator[Callable[[], Awaitable[NDArray[np.float64]]]]:
    """Run clients in a process within the block; yield a function with the result of `follow`.

    Raises
    ------
    PeerError
        When they cannot connect.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "arrived.npy"
        arguments = (address, path, str(clients), destination, str(updates), str(file))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", MODULE, *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        output = process.stdout
        assert output is not None
        try:
            if not await output.readline():
                raise PeerError(f"{clients:,} STOMP clients could not connect to {address}")

            async def arrivals() -> NDArray[np.float64]:
                if not await output.readline():
                    raise PeerError(f"the STOMP clients of {address} have failed")
                return np.asarray(np.load(file))

            yield arrivals
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


class StompLoad:
    """Clients that follow one destination, whose volume is 1 and then grows by 1 an update.

    Parameters
    ----------
    address, path : str
        HOST:PORT of a server, and its path for STOMP.
    clients : int
        How many.
    destination : str
        What each of them subscribes to.
    """

    def __init__(self, address: str, path: str, clients: int, destination: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._tails = [b""] * clients
        self._volumes = [0] * clients
        self._sockets: list[socket.socket] = []
        self._began_s = time.monotonic()
        self._beats = 0
        for number in range(clients):
            client = _connect(address, path, f"sub-{number}", destination)
            self._selector.register(client, selectors.EVENT_READ, number)
            self._sockets.append(client)
            self._send_beats()

    def wait(self) -> None:
        """Wait until every client has the state before the first update."""
        while min(self._volumes) < 1:
            self._read(np.empty((len(self._sockets), 1)))

    def follow(self, updates: int) -> NDArray[np.float64]:
        """Read until every client has the last update, or no more messages come.

        Returns
        -------
        arrived_s : float64[clients, updates]
            When each client first received a state that includes the update, by the monotonic
            clock; nan where it never did.
        """
        arrived_s = np.full((len(self._sockets), updates), np.nan)
        while min(self._volumes) <= updates and self._read(arrived_s):
            pass
        return arrived_s

    def _read(self, arrived_s: NDArray[np.float64]) -> int:
        """Read what has arrived; return for how many clients."""
        self._send_beats()
        ready = self._selector.select(_SILENCE_S)
        for key, _ in ready:
            number: int = key.data
            try:
                received = self._sockets[number].recv(1 << 16)
            except ConnectionError:
                received = b""
            if not received:
                self._volumes[number] = _LOST
                self._selector.unregister(key.fileobj)
                continue
            data = self._tails[number] + received
            self._tails[number] = data[-_LONGEST_BYTES:]
            volumes = _VOLUME.findall(data)
            if volumes:
                before, volume = self._volumes[number], int(volumes[-1])
                arrived_s[number, max(0, before - 1) : volume - 1] = time.monotonic()
                self._volumes[number] = max(before, volume)
        return len(ready)

    def _send_beats(self) -> None:
        """Send the heart-beats that are due, one client after the other, as they would."""
        clients = len(self._sockets)
        due = int((time.monotonic() - self._began_s) / _BEAT_S * len(self._volumes))
        for beat in range(self._beats, due):
            with contextlib.suppress(ConnectionError):  # reading finds that it is disconnected
                self._sockets[beat % clients].send(_frame(b"\n"))
        self._beats = due


def _connect(address: str, path: str, subscription: str, destination: str) -> socket.socket:
    """Return a WebSocket that has sent all requests to follow a destination."""
    client = socket.create_connection(parse_address(address))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    upgrade = (
        f"GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    client.sendall(upgrade.encode())
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = client.recv(1 << 12)
        if not chunk:
            raise PeerError(f"{address}{path}: closed the connection instead of an upgrade")
        received += chunk
    status = received.partition(b"\r\n")[0].decode("latin-1")
    if " 101 " not in status:
        raise PeerError(f"{address}{path}: answered an upgrade with {status}")
    headers = {"id": subscription, "destination": destination}
    for text in (encode("CONNECT", {"accept-version": "1.2"}), encode("SUBSCRIBE", headers)):
        client.sendall(_frame(text))
    client.setblocking(False)
    return client


def _frame(text: bytes) -> bytes:
    """Return a WebSocket frame of fewer than 126 bytes, masked with zeros."""
    return bytes((0x82, 0x80 | len(text), 0, 0, 0, 0)) + text


def main(address: str, path: str, clients: int, destination: str, updates: int, file: str) -> None:
    """Connect, and write the arrival times to a file."""
    raise_file_limit()
    load = StompLoad(address, path, clients, destination)
    load.wait()
    print("connected", flush=True)
    np.save(file, load.follow(updates))
    print("written", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), sys.argv[6])
