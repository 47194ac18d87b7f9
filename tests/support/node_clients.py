"""Scripts of tests/node, run by Node with the packages that they require."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path

from tests.support.requirements import needs, node_modules

SCRIPTS = Path(__file__).parent.parent / "node"


class NodeScript:
    """A script that writes and reads JSON, an object a line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def event(self) -> dict:
        """Its next object."""
        line = await self._process.stdout.readline()
        assert line, f"the script has ended: {(await self._process.stderr.read()).decode()}"
        return json.loads(line)

    async def do(self, what: str, **order: object) -> None:
        """Send it an order."""
        self._process.stdin.write(json.dumps({"do": what, **order}).encode() + b"\n")
        await self._process.stdin.drain()


@contextlib.asynccontextmanager
async def node_script(name: str, *arguments: str, token: str = ""):
    """A script that runs until the block ends, and authenticates by a token, if any."""
    process = await asyncio.create_subprocess_exec(
        *(needs("node"), str(SCRIPTS / name), *arguments),
        env={**os.environ, "NODE_PATH": str(node_modules()), "MDTOOL_TOKEN": token},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield NodeScript(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
