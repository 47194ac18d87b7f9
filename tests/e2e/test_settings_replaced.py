"""Files of settings that are replaced under a running service, as a config map's are."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from mdtool.core.addresses import parse_address
from mdtool.core.config import CONFIG_VARIABLE, variable
from mdtool.core.errors import EXIT_OK, EXIT_USAGE
from mdtool.wire.frames import Ack
from tests.support.aggregators import aggregator
from tests.support.commands import completed
from tests.support.ingest_servers import frames, send
from tests.support.mounted import Mounted
from tests.support.services import service
from tests.support.waiting import bounded

SECRET = variable("auth", "services_secret") + "_FILE"
TAKEN = Ack(True, "Accepted 1 tick, refused 0")


@pytest.mark.usefixtures("no_settings")
async def test_a_running_service_keeps_what_it_read_and_a_new_one_names_the_fault(
    tmp_path, free_port
):
    settings = f"[serve-tcp]\naggregator = '127.0.0.1:{free_port}'\n[stop]\ndrain-s = 0.1\n"
    files = {"mdtool.toml": settings, "secret": "of-this-run\n"}
    mounted = Mounted(tmp_path / "mounted", files)
    named = {CONFIG_VARIABLE: mounted["mdtool.toml"], SECRET: mounted["secret"]}
    environment = {**os.environ, **named}
    command = ("serve-tcp", "--port", "0")
    async with bounded():
        with service(*command, environment=environment) as running:
            address = parse_address(running.address)
            async with aggregator(port=free_port):
                assert await send(address, frames(1)) == TAKEN
            mounted.replace({"mdtool.toml": "[serve-tcp\n"})
            async with aggregator(port=free_port) as restarted:
                assert await send(address, frames(1)) == TAKEN
                assert restarted.market.counts.ticks == 1
            status, errors = await asyncio.to_thread(running.end, signal.SIGTERM)
            assert status == EXIT_OK, errors
            assert "draining" in errors
        for text, said in (("[serve-tcp\n", "mdtool.toml: "), (settings, "secret: ")):
            mounted.replace({"mdtool.toml": text})
            found = await asyncio.to_thread(completed, *command, env=environment)
            assert found.returncode == EXIT_USAGE
            error = found.stderr.decode()
            assert said in error
            assert error.count("\n") == 1
