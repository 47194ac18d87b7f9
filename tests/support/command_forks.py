"""A process that has imported slow modules and loaded all kernels, and forks for each command.

Imports and kernels take longer than most commands of tests. A fork is a process of its own, with
given descriptors, folder, environment and arguments.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import sys
import tempfile
import threading
from pathlib import Path
from typing import Final, NoReturn

import pyarrow.csv
import pyarrow.parquet  # noqa: F401

from mdtool.__main__ import main
from mdtool.cli.app import app
from tests.support.kernels import COMMANDS, SAMPLES

_MAX_REQUEST_BYTES: Final = 1 << 18
_STANDARD: Final = 3


def load() -> None:
    """Load the kernels of all commands, within this process."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for command in COMMANDS:
            app(command.format(samples=SAMPLES).split(), standalone_mode=False)
        sys.stdout.flush()
        os.chdir(here)


def serve(listener: socket.socket) -> None:
    """Fork for each request, until standard input ends; return in the process of a command.

    A request is the descriptors 0, 1 and 2 of the command, and its arguments, folder and
    environment as JSON; the answer is its exit status, negative for a signal.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # of who answers nobody asks the status
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            os._exit(0)
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            answer(connection)
            return
        connection.close()


def answer(connection: socket.socket) -> None:
    """Fork the command of one request and answer with its status; return in its process."""
    request, descriptors, _, _ = socket.recv_fds(connection, _MAX_REQUEST_BYTES, _STANDARD)
    command = os.fork()
    if command:
        for descriptor in descriptors:
            os.close(descriptor)
        _, status = os.waitpid(command, 0)
        connection.sendall(b"%d" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    connection.close()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    arguments, folder, environment = json.loads(request)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["mdtool", *arguments]


def run() -> NoReturn:
    """Run the command of this process, which ends as any does, but without taking modules apart."""
    try:
        main()
    except SystemExit as ended:
        threading._shutdown()  # waits for threads
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(ended.code)


if __name__ == "__main__":
    load()
    gc.freeze()  # else what is collected in forks is copied
    serve(socket.socket(fileno=int(sys.argv[1])))
    run()
