"""A real redis-server on a free port, which can be killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from mdtool.core.tcp import ReservedPort
from tests.support.requirements import needs


class RedisServer:
    """One server at one address, without persistence."""

    def __init__(self, program: str, folder: str, port: int, certificates=None) -> None:
        self.port = port
        self._certificates = certificates
        self._ready = b"Ready to accept connections"
        scheme = "redis" if certificates is None else "rediss"
        self.url = f"{scheme}://127.0.0.1:{port}"
        self._command = [
            *(program, *self.ports(port), "--bind", "127.0.0.1", "--dir", folder),
            *("--save", "", "--appendonly", "no"),
        ]
        self.process: asyncio.subprocess.Process | None = None

    def ports(self, port: int) -> list[str]:
        """The options of a port, with TLS where the server has certificates."""
        files = self._certificates
        if files is None:
            return ["--port", str(port)]
        return [
            *("--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"),
            *("--tls-cert-file", files["server.pem"], "--tls-key-file", files["server.key"]),
            *("--tls-ca-cert-file", files["ca.pem"], "--tls-replication", "yes"),
        ]

    async def start(self) -> None:
        """Start it, and wait until it accepts commands."""
        self.process = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        async for line in self.process.stdout:
            if self._ready in line:
                return
        raise AssertionError("redis-server ended")

    async def kill(self) -> None:
        """Kill it."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.communicate()
            self.process = None


class RedisSentinel(RedisServer):
    """A sentinel that knows one server, by the name `quotes`."""

    def __init__(self, program: str, folder: Path, port: int, server: RedisServer) -> None:
        super().__init__(program, str(folder), port)
        scheme = "rediss" if server.url.startswith("rediss") else "redis"
        self.url = f"{scheme}+sentinel://127.0.0.1:{port}/quotes"
        file = folder / "sentinel.conf"
        file.write_text(f"sentinel monitor quotes 127.0.0.1 {server.port} 1\n")
        ports = server.ports(port)
        self._command = [program, str(file), "--sentinel", *ports, "--bind", "127.0.0.1"]
        self._ready = b"+monitor"


@contextlib.asynccontextmanager
async def redis_server(folder, certificates=None):
    """A server that runs, unless it is killed meanwhile, until the block ends."""
    program = needs("redis")
    with ReservedPort("127.0.0.1") as held:
        server = RedisServer(program, str(folder), held.port, certificates)
        await server.start()
        try:
            yield server
        finally:
            await server.kill()


@contextlib.asynccontextmanager
async def redis_sentinel(folder, server):
    """A sentinel of a server until the block ends."""
    with ReservedPort("127.0.0.1") as held:
        sentinel = RedisSentinel(needs("redis"), folder, held.port, server)
        await sentinel.start()
        try:
            yield sentinel
        finally:
            await sentinel.kill()
