"""The audit log: a line of JSON for each decision about a client, in files rotated by size."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mdtool.core.config import setting
from mdtool.core.errors import StartupError
from mdtool.core.units import format_time

log = logging.getLogger(__name__)

_COLLECT_S: Final = 0.2
"""How long lines are collected, for one write."""
_MAX_WAITING: Final = 100_000
"""Lines that wait while the disk is slow; further ones are lost, and counted."""
_MAX_TEXT_CHARS: Final = 500


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """Where decisions about clients are logged, `[audit]`."""

    file: str = setting("", "File of the audit log; without one, there is none.", is_common=True)
    max_bytes: int = setting(
        64_000_000, "Size at which the file is rotated.", low=1_000, high=1 << 40
    )
    kept: int = setting(10, "Rotated files that are kept, FILE.1 the newest.", low=0, high=1_000)


class AuditLog:
    """Appends lines to a file. Several processes may share it.

    Parameters
    ----------
    config : AuditConfig
    service : str
        The name of the service, which each line has.

    Raises
    ------
    StartupError
        When the file cannot be opened.
    """

    def __init__(self, config: AuditConfig, service: str) -> None:
        self._path = Path(config.file)
        self._max_bytes = config.max_bytes
        self._kept = config.kept
        self._service = service
        self._waiting: list[str] = []
        self._lost = 0
        self._is_failing = False
        self._timer: asyncio.TimerHandle | None = None
        try:
            self._file = self._open()
        except OSError as error:
            raise StartupError(f"[audit] file: {config.file}: {error.strerror}") from error

    def note(self, who: str, where: str, what: str, refusal: str | None = None) -> None:
        """Log a decision.

        Parameters
        ----------
        who : str
            The principal's name.
        where : str
            The client's address.
        what : str
            What it requests; never a token.
        refusal : str, optional
            Why that is not allowed.
        """
        if len(self._waiting) >= _MAX_WAITING:
            self._lost += 1
            return
        line = {
            "time": format_time(time.time_ns()),
            "service": self._service,
            "principal": who,
            "address": where,
            "what": what[:_MAX_TEXT_CHARS],
            "allowed": refusal is None,
        }
        if refusal is not None:
            line["why"] = refusal[:_MAX_TEXT_CHARS]
        self._waiting.append(json.dumps(line))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_COLLECT_S, self.flush)

    def flush(self) -> None:
        """Write what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting:
            return
        lines, self._waiting = self._waiting, []
        try:
            self._write("\n".join([*lines, ""]).encode())
        except OSError as error:
            self._lost += len(lines)
            if not self._is_failing:
                why = error.strerror
                log.error("audit: %s: %s; decisions are not logged", self._path, why)  # noqa: TRY400
            self._is_failing = True
        else:
            if self._is_failing or self._lost:
                log.warning("audit: %d lines were lost", self._lost)
            self._is_failing, self._lost = False, 0

    def close(self) -> None:
        """Write what waits, and close the file."""
        self.flush()
        os.close(self._file)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def _write(self, data: bytes) -> None:
        if not self._is_current():
            os.close(self._file)
            self._file = self._open()
        if os.fstat(self._file).st_size + len(data) > self._max_bytes:
            self._rotate()
        while data:
            data = data[os.write(self._file, data) :]

    def _is_current(self) -> bool:
        """Return whether the file still has its name: another process may have rotated it."""
        try:
            return self._path.stat().st_ino == os.fstat(self._file).st_ino
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        if self._is_current():
            if self._kept:
                for number in range(self._kept - 1, 0, -1):
                    with contextlib.suppress(FileNotFoundError):
                        self._numbered(number).replace(self._numbered(number + 1))
                self._path.replace(self._numbered(1))
            else:
                self._path.unlink()
        os.close(self._file)  # which unlocks it
        self._file = self._open()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
