"""The control API of the live gateway: HTTP and JSON on loopback."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from mdtool.core.errors import InputError, MdtoolError, UsageError
from mdtool.core.stream_warnings import counts_of
from mdtool.core.units import format_time, parse_time
from mdtool.services.client import Admission
from mdtool.services.http.answers import Statuses, answer, encode_object
from mdtool.services.http.control import STOP_GRACE_S, control_application
from mdtool.services.http.entry import Policy
from mdtool.services.http.listening import listening
from mdtool.services.limits import Limits
from mdtool.services.live_gateway.faults import Fault, parse_faults
from mdtool.services.live_gateway.playback import Playback
from mdtool.services.live_gateway.session import Session
from mdtool.services.replay.runs import Run
from mdtool.services.security import Security
from mdtool.services.usage import keeping_current

LOOPBACK: Final = "127.0.0.1"
_REPLAY: Final = Policy(right="replay")
_SHOWN_SESSIONS: Final = 1_000


class NotPlayingError(MdtoolError):
    """No session has started, so there is nothing to pause."""


class NoSessionError(MdtoolError):
    """A fault is of a session that does not exist."""


_STATUSES: Final[Statuses] = {
    NoSessionError: (404, "no_session"),
    NotPlayingError: (409, "not_playing"),
    UsageError: (400, "bad_parameter"),
    InputError: (500, "input"),
}


class Control:
    """Pauses, seeks and breaks what a gateway plays.

    `?dataset=` chooses one of several.

    Parameters
    ----------
    playbacks : mapping of str to Playback
        By dataset.
    sessions : mapping of int to Session
        Those that are open, by number.
    inject : callable
        Adds faults to sessions, and to those that come.
    """

    def __init__(
        self,
        playbacks: Mapping[str, Playback],
        sessions: Mapping[int, Session],
        inject: Callable[[Sequence[Fault]], None],
    ) -> None:
        self._playbacks = playbacks
        self._sessions = sessions
        self._inject = inject

    @contextlib.asynccontextmanager
    async def listening(self, port: int, security: Security | None) -> AsyncIterator[str]:
        """Listen within the block, and authenticate by `security`; yield the real address.

        Raises
        ------
        StartupError
            When the port cannot be listened on.
        """
        routes = {
            ("GET", "/status"): (self._status, Policy(right="metrics")),
            ("POST", "/pause"): (self._pause, _REPLAY),
            ("POST", "/resume"): (self._resume, _REPLAY),
            ("POST", "/set-speed"): (self._set_speed, _REPLAY),
            ("POST", "/seek"): (self._seek, _REPLAY),
            ("POST", "/faults"): (self._faults, Policy(right="faults")),
        }
        admission = Admission(Limits(), security)
        app = control_application(routes, self._health, _STATUSES, admission)
        async with (
            listening(app, LOOPBACK, port, STOP_GRACE_S) as address,
            keeping_current(admission),
        ):
            yield address

    async def _status(self, _request: web.Request) -> web.Response:
        """`GET /status`."""
        return answer(encode_object(self._report()))

    async def _pause(self, request: web.Request) -> web.Response:
        """`POST /pause`."""
        for run in self._runs(request):
            run.pause()
        return await self._status(request)

    async def _resume(self, request: web.Request) -> web.Response:
        """`POST /resume`."""
        for run in self._runs(request):
            run.resume()
        return await self._status(request)

    async def _set_speed(self, request: web.Request) -> web.Response:
        """`POST /set-speed?speed=`."""
        try:
            speed = float(request.query.get("speed", ""))
        except ValueError:
            speed = math.nan
        if not (math.isfinite(speed) and speed >= 0):
            raise UsageError("speed: expects a number of at least 0; 0 is as fast as clients read")
        for playback in self._chosen(request):
            playback.set_speed(speed)
        return await self._status(request)

    async def _seek(self, request: web.Request) -> web.Response:
        """`POST /seek?to=`: continue at a time of the input, with all sessions."""
        to_ns = parse_time(request.query.get("to", ""))
        for playback in self._chosen(request):
            await playback.seek(to_ns)
        return await self._status(request)

    async def _faults(self, request: web.Request) -> web.Response:
        """`POST /faults?add=`: faults, as `--faults` takes them."""
        faults = parse_faults(request.query.get("add", ""))
        if not faults:
            raise UsageError("add: give faults, such as reset session=1")
        self._inject(faults)
        return await self._status(request)

    def _chosen(self, request: web.Request) -> list[Playback]:
        dataset = request.query.get("dataset")
        if not dataset:
            return list(self._playbacks.values())
        if dataset not in self._playbacks:
            known = ", ".join(self._playbacks)
            raise UsageError(f"dataset {dataset}: is not played here; choose from {known}")
        return [self._playbacks[dataset]]

    def _runs(self, request: web.Request) -> list[Run]:
        runs = [each.run for each in self._chosen(request)]
        playing = [run for run in runs if run is not None and not run.is_over]
        if not playing:
            raise NotPlayingError("no session has started, or playback is over")
        return playing

    def _health(self) -> dict[str, Any]:
        return {"sessions": len(self._sessions)}

    def _report(self) -> dict[str, Any]:
        return {
            "service": "live-gateway",
            "datasets": {dataset: _played(each) for dataset, each in self._playbacks.items()},
            "sessions": [each.report() for each in [*self._sessions.values()][:_SHOWN_SESSIONS]],
        }


def _played(playback: Playback) -> dict[str, Any]:
    run = playback.run
    if run is None:
        return {"state": "waiting", "speed": playback.speed, "position": 0}
    state = "over" if run.is_over else "waiting" if playback.is_waiting else "playing"
    return {
        "state": "paused" if run.is_paused else state,
        "speed": run.pace.speed,
        "position": run.position,
        "records_per_s": round(run.rates.per_second(time.monotonic_ns(), run.position)[0]),
        "market_time": format_time(run.latest_ns) if run.latest_ns > 0 else None,
        "warnings": counts_of(run.warnings),
        "error": run.error,
    }
