"""The clients of `stomp_load`, in a process of their own."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mdtool.bench import stomp_load
from mdtool.core.errors import PeerError


@contextlib.asynccontextmanager
async def stomp_clients(
    address: str, path: str, clients: int, destination: str, updates: int
) -> AsyncIterator[Callable[[], Awaitable[NDArray[np.float64]]]]:
    """Have clients follow a destination within the block; give what tells `StompLoad.follow`.

    Raises
    ------
    PeerError
        When they cannot connect.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "arrived.npy"
        what = (address, path, str(clients), destination, str(updates), str(file))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", stomp_load.__name__, *what),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        said = process.stdout
        assert said is not None
        try:
            if not await said.readline():
                raise PeerError(f"{clients:,} STOMP clients could not connect to {address}")

            async def arrivals() -> NDArray[np.float64]:
                if not await said.readline():
                    raise PeerError(f"the STOMP clients of {address} have failed")
                return np.asarray(np.load(file))

            yield arrivals
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
