"""The live gateway: it listens for clients of the vendor's live protocol, and plays its input."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import numpy as np

from mdtool.adapters.dbn_select import Selection
from mdtool.core.batch import Batch
from mdtool.core.errors import InputError, StartupError, UsageError
from mdtool.core.lifecycle import Started
from mdtool.core.tcp import listen
from mdtool.services.client import Admission
from mdtool.services.limits import CapacityError, LimitError, Limits
from mdtool.services.live_gateway.config import LOOP, LiveGatewayConfig
from mdtool.services.live_gateway.keys import Keys
from mdtool.services.live_gateway.playback import Input, Pass, Playback, inputs
from mdtool.services.live_gateway.session import Session
from mdtool.services.security import reject_auth
from mdtool.wire.dbn_records import DTYPES, RTYPES


class LiveGateway:
    """Serves DBN files, or a stream on standard input, to clients of the live protocol.

    Parameters
    ----------
    config : LiveGatewayConfig
    paths : sequence of str
        DBN files, folders or zips of them; or `-` alone.
    selection : Selection, optional
        The symbols and times to play.
    """

    name = "live-gateway"

    def __init__(
        self,
        config: LiveGatewayConfig,
        paths: Sequence[str],
        selection: Selection | None = None,
    ) -> None:
        self._config = config
        self._paths = paths
        self._selection = selection
        self._admission = Admission(
            Limits(requests_per_s=config.connects_per_s, connections=config.max_sessions)
        )
        self._numbers = itertools.count(1)
        self._playbacks: dict[str, Playback] = {}

    async def run(self, started: Started) -> None:
        """Serve until cancelled.

        Raises
        ------
        StartupError
            When the address cannot be listened on, or the input or the keys cannot be read.
        UsageError
            When standard input is to be looped, or merged with files.
        """
        reject_auth(self.name)
        config = self._config
        self._keys = Keys() if config.keys is None else Keys.read(config.keys)
        try:
            played = await asyncio.to_thread(inputs, self._paths, self._selection)
            for each in played.values():
                if each.can_repeat:
                    await asyncio.to_thread(_probe, each, config)
                elif config.at_end == LOOP:
                    raise UsageError("--at-end loop: standard input is read once; give files")
        except InputError as error:
            raise StartupError(str(error)) from error
        async with asyncio.TaskGroup() as tasks:
            for dataset, each in played.items():
                self._playbacks[dataset] = Playback(each, config, tasks)

            def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                tasks.create_task(self._serve(reader, writer))

            def protocol() -> asyncio.BaseProtocol:
                return asyncio.StreamReaderProtocol(asyncio.StreamReader(), connected)

            server = await listen(protocol, config.host, config.port)
            try:
                started({"live": server.address})
                await asyncio.get_running_loop().create_future()
            finally:
                server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(self._numbers)
        session = Session(number, self._playbacks, self._config, self._keys, reader, writer)
        client = self._admission.peer(writer.transport)
        try:
            client.spend_request()
            with client.connected("live", lambda _code, _reason: writer.close()):
                await session.serve()
        except (CapacityError, LimitError) as error:
            await session.serve(rejection=str(error))


def _probe(played: Input, config: LiveGatewayConfig) -> None:
    """Check that files can be read, and compile kernels."""
    probed = Pass.of(played, config)
    probed.run.close()
    if config.snapshots:
        probed.run.warm_up()
    if played.schemas is not None:
        derived = probed.derive()
        for schema in played.schemas & RTYPES.keys():
            record = np.zeros(1, DTYPES[RTYPES[schema]])
            record["rtype"] = RTYPES[schema]
            derived.follow(played, derived.schemas)
            derived.update(Batch.of(record))
            derived.close()
