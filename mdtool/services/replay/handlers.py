"""The sender's HTTP: what starts it, and what it says about itself."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from typing import Any, Final

from aiohttp import web

from mdtool.core.errors import InputError, UsageError
from mdtool.core.units import format_time
from mdtool.services.http.answers import (
    Statuses,
    answer,
    answering,
    encode_object,
    no_route,
)
from mdtool.services.replay.run import Run
from mdtool.services.replay.runs import AlreadyStreamingError, Runs
from mdtool.services.replay.session import Session, origin_of

_SHOWN_RECEIVERS: Final = 100
_STATUSES: Final[Statuses] = {
    AlreadyStreamingError: (409, "already_streaming"),
    UsageError: (400, "bad_parameter"),
    InputError: (500, "input"),
}


class SenderHandlers:
    """The handlers of the sender's paths.

    Parameters
    ----------
    runs : Runs
    sessions : collection of Session
        Those there are; the caller keeps it up to date.
    """

    def __init__(self, runs: Runs, sessions: Collection[Session]) -> None:
        self._runs = runs
        self._sessions = sessions

    def application(self) -> web.Application:
        """Return the application of all paths."""
        app = web.Application()
        app.router.add_post("/start-streaming", answering(self.start, _STATUSES))
        app.router.add_get("/status", answering(self.status, _STATUSES))
        app.router.add_get("/health", answering(self.health, _STATUSES))
        app.router.add_route("*", "/{path:.*}", no_route)
        return app

    async def start(self, request: web.Request) -> web.Response:
        """`POST /start-streaming?speed=`: start a run, at the sender's speed or another."""
        text = request.query.get("speed")
        run = await self._runs.start(None if text is None else _parse_speed(text))
        return answer(encode_object({"status": "streaming", **_of_run(run)}))

    async def status(self, _request: web.Request) -> web.Response:
        """`GET /status`."""
        report: dict[str, Any] = {
            "service": "replay-dbn",
            "state": self._state(),
            "files": list(self._runs.recording.paths),
            "receivers": len(self._sessions),
        }
        if self._runs.last is not None:
            report |= _of_run(self._runs.last)
        shown = list(self._sessions)[:_SHOWN_RECEIVERS]
        report["sessions"] = [_of_session(session) for session in shown]
        return answer(encode_object(report))

    async def health(self, _request: web.Request) -> web.Response:
        """`GET /health`."""
        return answer(encode_object({"status": "ok", "state": self._state()}))

    def _state(self) -> str:
        if self._runs.is_streaming:
            return "streaming"
        if self._runs.last is None:
            return "idle"
        return "done" if self._runs.last.error is None else "failed"


def _parse_speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not (math.isfinite(speed) and speed >= 0):
        raise UsageError("speed: wants a number from 0, which is flat out")
    return speed


def _of_run(run: Run) -> dict[str, Any]:
    return {
        "stream": run.identity,
        "speed": run.pace.speed,
        "position": run.position,
        "records_per_s": round(run.rates.per_second(time.monotonic_ns(), run.position)[0]),
        "market_time": format_time(run.latest_ns) if run.latest_ns > 0 else None,
        "error": run.error,
    }


def _of_session(session: Session) -> dict[str, Any]:
    progress, run = session.progress, session.run
    return {
        "address": session.name,
        "from": origin_of(session.request),
        "position": progress.position,
        "behind": max(run.position - progress.position, 0) if run is not None else 0,
        "sent": progress.sent,
        "skipped": progress.skipped,
    }
