"""`mdtool` as a process that runs to its end."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

MDTOOL: Final = [sys.executable, "-m", "mdtool"]
_ROOT: Final = Path(__file__).parents[2]
_MAX_ANSWER_BYTES: Final = 16


def completed(
    *arguments: object, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run it to its end, with pipes for its input and output."""
    words = [str(argument) for argument in arguments]
    request = [words, str(Path.cwd()), dict(os.environ if env is None else env)]
    (given, giving), *pipes = [os.pipe() for _ in range(3)]
    theirs = [given, *(write for _, write in pipes)]
    with socket.socket(socket.AF_UNIX) as connection, ThreadPoolExecutor(len(pipes)) as threads:
        connection.connect(_forks())
        socket.send_fds(connection, [json.dumps(request).encode()], theirs)
        for descriptor in theirs:
            os.close(descriptor)
        out, err = (threads.submit(_read, read) for read, _ in pipes)
        with contextlib.suppress(BrokenPipeError), os.fdopen(giving, "wb") as file:
            file.write(stdin)
        status = connection.recv(_MAX_ANSWER_BYTES)
        assert status, "the process that forks has ended"
        return subprocess.CompletedProcess(words, int(status), out.result(), err.result())


def _read(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def output_of(*arguments: object, stdin: bytes = b"", status: int = 0, said: str = "") -> bytes:
    """Run it to its end; check its status and its stderr; return its output."""
    ended = completed(*arguments, stdin=stdin)
    errors = ended.stderr.decode()
    assert ended.returncode == status, ended
    assert said in errors, ended
    if not said:
        assert errors == "", ended
    return ended.stdout


@functools.cache
def _forks() -> str:
    """Start the process that forks, which ends with this one; return its address."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    address = f"{folder.name}/forks"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.command_forks", str(listener.fileno())],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
        )
    atexit.register(_end, process)
    return address


def _end(process: subprocess.Popen[bytes]) -> None:
    process.stdin.close()
    process.wait()
