"""The clients of ten lines in docs, run as they are but for the gateway's address."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from pathlib import Path

import pytest

from mdtool.services.gateway.table import TABLE
from tests.support.feed_followers import StreamFollower, follower_of
from tests.support.feed_sources import SOURCES, world_of
from tests.support.requirements import needs, node_modules

DOCS = Path(__file__).parents[2] / "docs"
CLIENT = re.compile(r"^<!-- client -->\n```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CLIENTS = [
    pytest.param(language, code, id=f"{path.stem}-{number}-{language}")
    for path in sorted(DOCS.glob("*.md"))
    for number, (language, code) in enumerate(CLIENT.findall(path.read_text("utf-8")))
]
GATEWAY = "localhost:8080"
# Node has a WebSocket of its own from version 22 on.
WEBSOCKET = """
import {{createRequire}} from "node:module";
globalThis.WebSocket ??= createRequire({modules})("ws");
"""


def test_docs_have_clients_of_rest_and_stream_in_both_languages():
    assert sorted((client.values[0], "/stream" in client.values[1]) for client in CLIENTS) == [
        ("js", False),
        ("js", True),
        ("python", False),
        ("python", True),
    ]


@contextlib.asynccontextmanager
async def running(language: str, code: str):
    """A client that runs until the block ends."""
    if language == "python":
        command = (sys.executable, "-u", "-c", code)
    else:
        prelude = WEBSOCKET.format(modules=json.dumps(f"{node_modules()}/"))
        command = (needs("node"), "--input-type=module", "-e", prelude + code)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def printed(process, price: str) -> None:
    """Wait until the client prints a price."""
    while line := await process.stdout.readline():
        if price in line.decode():
            return
    pytest.fail(f"the client ended, with status {await process.wait()}, before it printed {price}")


@pytest.mark.parametrize(("language", "code"), CLIENTS)
async def test_a_client_prints_what_the_gateway_sends(language, code):
    source = SOURCES["aggregates"]
    async with world_of(source) as world:
        await source.change(world, {"AAPL": 101})
        async with follower_of(StreamFollower, world.client) as follower:
            await follower.subscribe(TABLE["aggregates"], "AAPL")
            await follower.until("AAPL", 101, source)
        address = f"{world.client.host}:{world.client.port}"
        assert GATEWAY in code
        async with running(language, code.replace(GATEWAY, address)) as process:
            await printed(process, "1.01")
            if "/stream" in code:
                await source.change(world, {"AAPL": 102})
                await printed(process, "1.02")
            else:
                assert await process.wait() == 0
