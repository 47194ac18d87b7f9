"""The sender service: a port on which it streams DBN, and HTTP that starts and describes it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from aiohttp import web

from mdtool.adapters.dbn_files import Recording
from mdtool.core.errors import InputError, StartupError, UsageError
from mdtool.core.lifecycle import Started
from mdtool.core.stream_warnings import counts_of
from mdtool.core.tcp import listen, stream_protocol
from mdtool.core.tls import ServerTls, server_tls
from mdtool.core.units import format_time
from mdtool.services.client import Admission
from mdtool.services.http.answers import Statuses, answer, encode_object
from mdtool.services.http.control import STOP_GRACE_S, control_application
from mdtool.services.http.entry import Policy
from mdtool.services.http.listening import listening
from mdtool.services.limits import CapacityError, LimitError, Limits
from mdtool.services.replay.config import SenderConfig
from mdtool.services.replay.runs import AlreadyStreamingError, NotStreamingError, Pace, Run, Runs
from mdtool.services.replay.session import Session
from mdtool.services.security import Security
from mdtool.services.usage import keeping_current

_SHOWN_RECEIVERS: Final = 100
_REPLAY: Final = Policy(right="replay")
_STATUSES: Final[Statuses] = {
    AlreadyStreamingError: (409, "already_streaming"),
    NotStreamingError: (409, "not_streaming"),
    UsageError: (400, "bad_parameter"),
    InputError: (500, "input"),
}


class ReplaySender:
    """Replays a recording to every receiver that connects, once it is started over HTTP.

    Parameters
    ----------
    config : SenderConfig
    recording : Recording
    pace : Pace
        The default of each run.
    """

    name = "replay-dbn"

    def __init__(self, config: SenderConfig, recording: Recording, pace: Pace) -> None:
        self._config = config
        self._recording = recording
        self._pace = pace
        self._admission: Admission
        self._sessions: dict[Session, None] = {}
        self._runs: Runs

    async def run(self, started: Started) -> None:
        """Serve until cancelled; receivers are disconnected then, and can resume.

        Raises
        ------
        StartupError
            When an address cannot be listened on, or the recording cannot be read.
        """
        config = self._config
        security = Security.load(self.name, config.host, config.auth)
        self._admission = Admission(Limits(connections=config.max_receivers), security)
        tls = server_tls(self.name)
        await asyncio.to_thread(self._probe)
        async with asyncio.TaskGroup() as tasks:
            self._runs = Runs(self._recording, self._pace, config.backlog_bytes, tasks)
            routes = {
                ("POST", "/start-streaming"): (self._start, _REPLAY),
                ("POST", "/stop-streaming"): (self._stop, _REPLAY),
                ("POST", "/pause-streaming"): (self._pause, _REPLAY),
                ("POST", "/resume-streaming"): (self._resume, _REPLAY),
                ("POST", "/set-speed"): (self._set_speed, _REPLAY),
                ("GET", "/status"): (self._status, Policy(right="metrics")),
            }
            app = control_application(routes, self._health, _STATUSES, self._admission)
            async with (
                listening(app, config.host, config.port, STOP_GRACE_S, tls=tls) as http_address,
                self._streaming(tasks, tls) as data_address,
                keeping_current(self._admission),
            ):
                started({"http": http_address, "dbn": data_address})
                await asyncio.get_running_loop().create_future()

    def _probe(self) -> None:
        """Check that the recording can be read, and compile kernels."""
        try:
            run = Run(self._recording, self._pace, 0, self._config.backlog_bytes)
        except InputError as error:
            raise StartupError(str(error)) from error
        run.close()
        run.warm_up()

    @contextlib.asynccontextmanager
    async def _streaming(
        self, tasks: asyncio.TaskGroup, tls: ServerTls | None
    ) -> AsyncIterator[str]:
        """Listen for receivers within the block; yield the real address."""
        protocol = stream_protocol(tasks, self._serve)
        config = self._config
        server = await listen(protocol, config.host, config.data_port, "--data-port", tls=tls)
        try:
            yield server.address
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = self._admission.peer(writer.transport)
        session = Session(self._runs, client, reader, writer, self._config.greeting_ms / 1_000)
        try:
            with client.connected("dbn", session.dismissal.close):
                self._sessions[session] = None
                try:
                    await session.serve()
                finally:
                    del self._sessions[session]
        except (CapacityError, LimitError) as error:
            await session.reject(str(error))

    async def _start(self, request: web.Request) -> web.Response:
        """`POST /start-streaming?speed=`: start a run, at the default speed or another."""
        text = request.query.get("speed")
        run = await self._runs.start(_parse_speed(text) if text else None)
        return answer(encode_object({"status": "streaming", **_report_of(run)}))

    async def _stop(self, _request: web.Request) -> web.Response:
        """`POST /stop-streaming`: end the run, for its receivers as at the end of the recording."""
        run = self._runs.current()
        run.stop()
        return answer(encode_object({"status": "stopped", **_report_of(run)}))

    async def _pause(self, _request: web.Request) -> web.Response:
        """`POST /pause-streaming`."""
        run = self._runs.current()
        run.pause()
        return answer(encode_object({"status": "paused", **_report_of(run)}))

    async def _resume(self, _request: web.Request) -> web.Response:
        """`POST /resume-streaming`: continue after a pause."""
        run = self._runs.current()
        run.resume()
        return answer(encode_object({"status": "streaming", **_report_of(run)}))

    async def _set_speed(self, request: web.Request) -> web.Response:
        """`POST /set-speed?speed=`: continue at another speed, or at the default one."""
        text = request.query.get("speed")
        speed = _parse_speed(text) if text else self._pace.speed
        run = self._runs.current()
        run.set_speed(speed)
        return answer(encode_object({"status": self._state(), **_report_of(run)}))

    async def _status(self, _request: web.Request) -> web.Response:
        """`GET /status`."""
        report: dict[str, Any] = {
            "service": "replay-dbn",
            "state": self._state(),
            "files": list(self._runs.recording.paths),
            "receivers": len(self._sessions),
        }
        if self._runs.last is not None:
            report |= _report_of(self._runs.last)
        report["sessions"] = [each.report() for each in [*self._sessions][:_SHOWN_RECEIVERS]]
        return answer(encode_object(report))

    def _health(self) -> dict[str, Any]:
        run = self._runs.last
        warnings = {} if run is None else {"warnings": counts_of(run.warnings)}
        return {"state": self._state(), **warnings}

    def _state(self) -> str:
        last = self._runs.last
        if self._runs.is_streaming:
            return "paused" if last is not None and last.is_paused else "streaming"
        if last is None:
            return "idle"
        if last.is_stopped:
            return "stopped"
        return "done" if last.error is None else "failed"


def _parse_speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not (math.isfinite(speed) and speed >= 0):
        raise UsageError("speed: expects a number of at least 0; 0 is flat out")
    return speed


def _report_of(run: Run) -> dict[str, Any]:
    return {
        "stream": run.identity,
        "speed": run.pace.speed,
        "position": run.position,
        "progress": None if run.progress is None else round(run.progress, 4),
        "records_per_s": round(run.rates.per_second(time.monotonic_ns(), run.position)[0]),
        "market_time": format_time(run.latest_ns) if run.latest_ns > 0 else None,
        "warnings": counts_of(run.warnings),
        "error": run.error,
    }
