"""Many STOMP clients in one process, each a bare socket, that read as fast as they can.

Run as a module: the address and the path of a server, how many clients, a destination, and how many
updates of it there will be; then the file that is to hold when each client was told of each update.
A line is printed once every client was told of the present state, and one once the file is there;
the clients stay connected until stdin ends.
"""

from __future__ import annotations

import re
import selectors
import socket
import sys
import time
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.core.addresses import parse_address
from mdtool.core.limits import raise_file_limit
from mdtool.wire.stomp import encode

_VOLUME: Final = re.compile(rb'"volume":"(\d+)"')
_LONGEST_BYTES: Final = 40
"""Of what `_VOLUME` may be cut in by the end of what has arrived."""
_SILENCE_S: Final = 30.0
"""After which nothing comes any more."""
_BEAT_S: Final = 10.0
"""How often clients say that they are there."""


class StompLoad:
    """Clients that follow one destination, whose volume is 1 and then grows by 1 an update.

    Parameters
    ----------
    address, path : str
        HOST:PORT of a server, and where it speaks STOMP.
    clients : int
        How many.
    destination : str
        What each of them follows.
    """

    def __init__(self, address: str, path: str, clients: int, destination: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._tails = [b""] * clients
        self._volumes = [0] * clients
        self._beat_s = time.monotonic()
        self._sockets = []
        for number in range(clients):
            client = _connect(address, path, f"sub-{number}", destination)
            self._selector.register(client, selectors.EVENT_READ, number)
            self._sockets.append(client)

    def wait(self) -> None:
        """Wait until every client was told of the state before the first update."""
        while min(self._volumes) < 1:
            self._read(np.empty((len(self._sockets), 1)))

    def follow(self, updates: int) -> NDArray[np.float64]:
        """Read until every client was told of the last update, or nothing comes any more.

        Returns
        -------
        arrived_s : float64[clients, updates]
            When each client was first told of a state with the update in it, by the monotonic
            clock; nan where it never was.
        """
        arrived_s = np.full((len(self._sockets), updates), np.nan)
        while min(self._volumes) <= updates and self._read(arrived_s):
            pass
        return arrived_s

    def _read(self, arrived_s: NDArray[np.float64]) -> int:
        """Take what has arrived; return of how many clients."""
        if time.monotonic() - self._beat_s > _BEAT_S:
            self._beat_s = time.monotonic()
            for client in self._sockets:
                client.send(_frame(b"\n"))
        ready = self._selector.select(_SILENCE_S)
        for key, _ in ready:
            number: int = key.data
            data = self._tails[number] + self._sockets[number].recv(1 << 16)
            self._tails[number] = data[-_LONGEST_BYTES:]
            volumes = _VOLUME.findall(data)
            if volumes:
                known, volume = self._volumes[number], int(volumes[-1])
                arrived_s[number, max(0, known - 1) : volume - 1] = time.monotonic()
                self._volumes[number] = max(known, volume)
        return len(ready)


def _connect(address: str, path: str, subscription: str, destination: str) -> socket.socket:
    """Return a WebSocket that follows a destination, all of it asked for at once."""
    client = socket.create_connection(parse_address(address))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    upgrade = (
        f"GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    client.sendall(upgrade.encode())
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(1 << 12)
    headers = {"id": subscription, "destination": destination}
    for text in (encode("CONNECT", {"accept-version": "1.2"}), encode("SUBSCRIBE", headers)):
        client.sendall(_frame(text))
    client.setblocking(False)
    return client


def _frame(text: bytes) -> bytes:
    """Return a WebSocket frame of fewer than 126 bytes, masked with zeros, which changes none."""
    return bytes((0x82, 0x80 | len(text), 0, 0, 0, 0)) + text


def main(address: str, path: str, clients: int, destination: str, updates: int, file: str) -> None:
    """Connect, and write down what comes."""
    raise_file_limit()
    load = StompLoad(address, path, clients, destination)
    load.wait()
    print("connected", flush=True)
    np.save(file, load.follow(updates))
    print("told", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), sys.argv[6])
