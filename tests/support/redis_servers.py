"""A real redis-server on a free port, which can be killed and started again."""

from __future__ import annotations

import asyncio
import contextlib

from mdtool.core.tcp import ReservedPort
from tests.support.requirements import needs


class RedisServer:
    """One server at one address, without persistence."""

    def __init__(self, program: str, folder: str, port: int) -> None:
        self.port = port
        self.url = f"redis://127.0.0.1:{port}"
        self._command = [
            *(program, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder),
            *("--save", "", "--appendonly", "no"),
        ]
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it accepts commands."""
        self.process = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        async for line in self.process.stdout:
            if b"Ready to accept connections" in line:
                return
        raise AssertionError("redis-server ended")

    async def kill(self) -> None:
        """Kill it."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.communicate()
            self.process = None


@contextlib.asynccontextmanager
async def redis_server(folder):
    """A server that runs, unless it is killed meanwhile, until the block ends."""
    program = needs("redis")
    with ReservedPort("127.0.0.1") as held:
        server = RedisServer(program, str(folder), held.port)
        await server.start()
        try:
            yield server
        finally:
            await server.kill()
