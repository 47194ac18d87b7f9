"""Ticks as a client of the ingest server sends them, flat out, over one connection."""

from __future__ import annotations

import socket
import time
from typing import Final

import numpy as np

from mdtool.core.addresses import parse_address
from mdtool.core.errors import PeerError
from mdtool.core.units import NS_PER_MS, PRICE_SCALE
from mdtool.wire.control import Ack, ReplyDecoder
from mdtool.wire.tick_encoder import encode_frames

SYMBOLS: Final = ("AAPL", "MSFT", "GOOG", "AMZN", "TSLA")
"""They trade in turns."""


def frames(count: int, first_ns: int) -> memoryview:
    """Return Tick frames a millisecond apart, of all symbols in turns."""
    random = np.random.default_rng(0)
    price = random.integers(100 * PRICE_SCALE, 200 * PRICE_SCALE, count)
    return encode_frames(
        SYMBOLS,
        np.arange(count) % len(SYMBOLS),
        price,
        random.integers(1, 1_000, count),
        first_ns + np.arange(count) * NS_PER_MS,
    ).data


def send(address: str, data: memoryview, expected: str) -> float:
    """Send frames as a plain client, and return how long it took to the Ack that is expected.

    Raises
    ------
    PeerError
        When another answer comes, or none.
    """
    with socket.create_connection(parse_address(address)) as connection:
        began_s = time.perf_counter()
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        replies = ReplyDecoder()
        while received := connection.recv(1 << 16):
            for reply in replies.feed(received):
                if isinstance(reply, Ack) and reply.message.startswith(expected):
                    return time.perf_counter() - began_s
                raise PeerError(f"{address}: {reply}")
    raise PeerError(f"{address} did not acknowledge the frames")
