"""The supervisor over small programs: readiness, restarts, the order of stopping, no orphans."""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import os
import select
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest

from mdtool.core.backoff import delays
from mdtool.core.errors import StartupError, UsageError
from mdtool.services.supervisor import child
from mdtool.services.supervisor.child import Child, ended
from mdtool.services.supervisor.programs import Program
from mdtool.services.supervisor.supervisor import Supervisor
from tests.support.processes import ChildProcess

SERVICE = """
import asyncio, os, signal, sys
from mdtool.core.lifecycle import run_service

class Fake:
    name = sys.argv[1]
    async def run(self, started):
        told = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, told.set)
        print("pid", os.getpid(), flush=True)
        if "late" in sys.argv:
            await told.wait()
        started({} if self.name == "source" else {"tcp": self.name + ":1"})
        try:
            await asyncio.Event().wait()
        finally:
            print("stopping", flush=True)
            if "slow" in sys.argv:
                await told.wait()
            print("stopped", flush=True)

sys.exit(run_service(Fake(), within_s=60))
"""
"""A service that tells its process id, and what it does on SIGUSR1 by its arguments."""


def service(name, *habits, stop_s=60.0, **options):
    return Program(name, [sys.executable, "-c", SERVICE, name, *habits], stop_s=stop_s, **options)


def script(name, text, **options):
    return Program(name, [sys.executable, "-c", text], **options)


class Run(logging.Handler):
    """A supervisor at work; what its children print and it logs itself, in one queue."""

    def __init__(self, programs):
        super().__init__()
        self.said = asyncio.Queue()
        self.reported = asyncio.get_running_loop().create_future()
        self.started = []
        styles = {program.name: self._hearing(program.name) for program in programs}
        supervisor = Supervisor(programs, styles, self.reported.set_result)
        self.task = asyncio.create_task(supervisor.run(self.started.append))

    def _hearing(self, name):
        def style(line):
            self.said.put_nowait((name, line))
            return f"{name} | {line}"

        return style

    def emit(self, record):
        self.said.put_nowait(("serve", record.getMessage()))

    async def heard(self, name, beginning):
        """Return the rest of the first line of `name` with that beginning, skipping others."""
        return (await self.heard_all((name, beginning)))[0]

    async def heard_all(self, *awaited):
        """Return the rests of lines, each by a name and its beginning, in whatever order they come.

        What a program prints, and what the supervisor says of it, come by ways of their own.
        """
        rests = {}
        while len(rests) < len(awaited):
            who, line = await self._line()
            for name, beginning in awaited:
                if who == name and line.startswith(beginning):
                    rests.setdefault((name, beginning), line.removeprefix(beginning).strip())
        return [rests[each] for each in awaited]

    async def pids(self, *names):
        """Return the process ids that programs tell."""
        return [int(pid) for pid in await self.heard_all(*((name, "pid") for name in names))]

    async def line_of(self, name):
        """Return the next line of `name`, skipping those of others."""
        while (said := await self._line())[0] != name:
            pass
        return said[1]

    async def _line(self):
        line = asyncio.ensure_future(self.said.get())
        await asyncio.wait({line, self.task}, return_when=asyncio.FIRST_COMPLETED)
        if not line.done():
            line.cancel()
            self.task.result()
            pytest.fail("the supervisor ended")
        return line.result()

    def rest(self):
        """Return the lines that nobody asked for yet."""
        said = [self.said.get_nowait() for _ in range(self.said.qsize())]
        return [(name, line) for name, line in said if name != "serve"]

    async def stop(self):
        if not self.task.cancelling():
            self.task.cancel()
        await asyncio.wait({self.task})


@asynccontextmanager
async def supervise(*programs):
    run = Run(programs)
    logger = logging.getLogger("mdtool.services.supervisor")
    before = logger.level
    logger.addHandler(run)
    logger.setLevel(logging.INFO)
    try:
        yield run
    finally:
        await run.stop()
        logger.removeHandler(run)
        logger.setLevel(before)


async def test_addresses_are_reported_once_all_are_ready():
    async with supervise(service("one"), service("two")) as run:
        assert await run.reported == {"one": {"tcp": "one:1"}, "two": {"tcp": "two:1"}}
        assert run.started == [{"one tcp": "one:1", "two tcp": "two:1"}]


async def test_nothing_is_reported_before_the_last_is_ready():
    async with supervise(service("one"), service("two", "late")) as run:
        pid = int(await run.heard("two", "pid"))
        assert not run.reported.done()
        os.kill(pid, signal.SIGUSR1)
        await run.reported


async def test_the_news_waits_for_a_source_to_be_served():
    source = service("source", "late", is_source=True, after="one", first_tick_s=60.0)
    async with supervise(service("one"), source) as run:
        pid = int(await run.heard("source", "pid"))
        assert not run.reported.done()
        os.kill(pid, signal.SIGUSR1)
        assert await run.reported == {"one": {"tcp": "one:1"}}


async def test_the_news_does_not_wait_long_for_a_source():
    source = service("source", "late", is_source=True, first_tick_s=0.01)
    async with supervise(service("one"), source) as run:
        assert await run.reported == {"one": {"tcp": "one:1"}}


async def test_a_program_starts_after_the_one_that_it_needs():
    async with supervise(service("one", "late"), service("two", after="one")) as run:
        one = int(await run.heard("one", "pid"))
        assert all(name == "one" for name, _ in run.rest())
        os.kill(one, signal.SIGUSR1)
        await run.heard("two", "pid")
        await run.reported


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGKILL, "two was killed by SIGKILL"), (signal.SIGTERM, "two has ended")],
)
async def test_what_dies_is_started_again(number, words):
    async with supervise(service("one"), service("two")) as run:
        pids = [int(await run.heard("two", "pid"))]
        await run.reported
        for _ in range(2):
            os.kill(pids[-1], number)
            await run.heard("serve", f"{words}; starting it again in")
            pids.append(int(await run.heard("two", "pid")))
        assert len(set(pids)) == 3


async def test_what_cannot_be_started_again_for_want_of_descriptors_is_tried_again(monkeypatch):
    spawn = asyncio.create_subprocess_exec
    shortages = [OSError(errno.EMFILE, "Too many open files") for _ in range(2)]

    async def short(*command, **options):
        if shortages:
            raise shortages.pop()
        return await spawn(*command, **options)

    async with supervise(service("one")) as run:
        pid = int(await run.heard("one", "pid"))
        await run.reported
        monkeypatch.setattr(asyncio, "create_subprocess_exec", short)
        os.kill(pid, signal.SIGKILL)
        for _ in range(2):
            await run.heard("serve", "one could not be started (Too many open files); starting it")
        assert int(await run.heard("one", "pid")) != pid


class FakeTime:
    """Stands in for the child's asyncio: its clock moves by what runs and what is waited."""

    def __init__(self):
        self.now_s = 100.0
        self.delays_s = []

    def get_running_loop(self):
        return self

    def time(self):
        return self.now_s

    async def sleep(self, delay_s):
        self.delays_s.append(delay_s)
        self.now_s += delay_s

    Event = asyncio.Event


class Dying(Child):
    """Runs for the given times, each time to a failure."""

    def __init__(self, clock, runs_s):
        super().__init__(Program("one", []), str, lifeline=-1)
        self._clock = clock
        self._runs_s = iter(runs_s)

    async def _run_once(self):
        run_s = next(self._runs_s, None)
        self._stopping = run_s is None
        self._clock.now_s += run_s or 0
        return 1


@pytest.mark.parametrize(
    ("runs_s", "delays_s"),
    [
        ([0, 0], [0.1, 0.2]),
        ([0, 0, 0, child.STEADY_S, 0, 0], [0.1, 0.2, 0.4, 0.1, 0.2, 0.4]),
        ([0, 0, child.STEADY_S - 0.5], [0.1, 0.2, 0.4]),
        ([0] * 8, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]),
        ([child.STEADY_S] * 3, [0.1] * 3),
    ],
    ids=["quick deaths", "steady in between", "not quite steady", "longest delay", "always steady"],
)
async def test_restart_delays_grow_until_a_steady_run(monkeypatch, runs_s, delays_s):
    clock = FakeTime()
    monkeypatch.setattr(child, "asyncio", clock)
    monkeypatch.setattr(child, "delays", functools.partial(delays, jitter=0))
    await Dying(clock, runs_s).run()
    assert clock.delays_s == pytest.approx(delays_s)


async def test_what_cannot_start_stops_the_rest_and_is_not_tried_again():
    refused = "print('mdtool: port 50050 on 127.0.0.1 is in use'); raise SystemExit(3)"
    async with supervise(service("one"), script("two", refused, after="one")) as run:
        with pytest.raises(ExceptionGroup) as failed:
            await run.task
        assert failed.group_contains(
            StartupError, match="^two could not start: port 50050 on 127.0.0.1 is in use$"
        )
        rest = run.rest()
    assert rest[-2:] == [("one", "stopping"), ("one", "stopped")]
    assert "two" not in [name for name, _ in rest]  # the error says it


async def test_a_program_that_was_ready_is_restarted_while_its_peer_is_unavailable(tmp_path):
    away = tmp_path / "away"
    text = f"import os\nif os.path.exists({str(away)!r}): raise SystemExit(3)\n{SERVICE}"
    program = Program("one", [sys.executable, "-c", text, "one"])
    async with supervise(program) as run:
        pid = int(await run.heard("one", "pid"))
        await run.reported
        away.touch()
        os.kill(pid, signal.SIGKILL)
        await run.heard("serve", "one failed with exit status 3; starting it again in")
        away.unlink()
        await run.heard_all(("one", "pid"), ("serve", "one: running again"))


async def test_wrong_usage_is_not_tried_again():
    async with supervise(script("one", "raise SystemExit(2)")) as run:
        with pytest.raises(ExceptionGroup) as failed:
            await run.task
        assert failed.group_contains(UsageError, match="one could not start: failed with exit")


async def test_a_program_that_is_not_there_cannot_start():
    async with supervise(Program("one", ["/no/such/program"])) as run:
        with pytest.raises(ExceptionGroup) as failed:
            await run.task
        assert failed.group_contains(StartupError, match="one could not start: No such file")


@pytest.mark.parametrize("status", [0, 1])
async def test_a_source_that_ends_is_not_restarted_and_the_rest_runs_on(status):
    source = script("source", f"raise SystemExit({status})", is_source=True, first_tick_s=60.0)
    async with supervise(service("one"), source) as run:
        await run.heard("serve", f"source {ended(status)}")
        await run.reported
        assert not run.task.done()
    assert run.rest()[-2:] == [("one", "stopping"), ("one", "stopped")]


async def test_a_source_that_is_killed_is_started_again():
    async with supervise(service("one"), service("source", is_source=True)) as run:
        os.kill(int(await run.heard("source", "pid")), signal.SIGKILL)
        await run.heard("source", "pid")


async def test_programs_stop_one_by_one_from_the_last():
    async with supervise(service("one"), service("two"), service("three")) as run:
        await run.pids("one", "two", "three")
        await run.reported
    assert run.rest() == [
        (name, line) for name in ("three", "two", "one") for line in ("stopping", "stopped")
    ]


async def test_a_server_is_kept_running_while_its_clients_stop():
    async with supervise(service("sink"), service("feeder", "slow")) as run:
        sink, feeder = await run.pids("sink", "feeder")
        await run.reported
        run.task.cancel()
        await run.heard("feeder", "stopping")
        os.kill(sink, signal.SIGKILL)
        await run.heard("sink", "pid")
        os.kill(feeder, signal.SIGUSR1)
    assert ("feeder", "stopped") in run.rest()


async def test_what_does_not_stop_in_time_is_killed():
    async with supervise(service("one"), service("two", "slow", stop_s=0.1)) as run:
        await run.reported
        run.task.cancel()
        await run.heard("serve", "two: not stopped in time, killed")
        await run.heard("one", "stopped")
    assert ("two", "stopped") not in run.rest()


async def test_a_stop_during_the_backoff_does_not_start_it_again():
    async with supervise(script("one", "raise SystemExit(1)")) as run:
        await run.heard("serve", "one failed with exit status 1; starting it again in")
    assert run.task.cancelled()
    assert run.rest() == []


async def test_all_that_a_child_prints_is_relayed():
    text = "import sys; print('out', flush=True); sys.stderr.write('no end')"
    async with supervise(service("one"), script("two", text, is_source=True)) as run:
        await run.heard("two", "out")
        await run.heard("two", "no end")


async def test_progress_of_compiling_is_shown_while_it_is_made():
    text = "from mdtool.core import logs; logs.configure()\n"
    text += "from mdtool.core.compiling import Notice; Notice.say(); Notice.say()\nimport time\n"
    text += "print('then', flush=True); time.sleep(600)"
    async with supervise(script("one", text)) as run:
        assert (await run.line_of("one")).endswith(
            "INFO    compiling kernels, once after an install..."
        )
        assert await run.line_of("one") == "then"


async def test_children_are_out_of_reach_of_the_terminal():
    text = "import os, sys; print('group', os.getpgid(0) == os.getpid(), sys.stdin.read() == '')"
    async with supervise(service("one"), script("two", text, is_source=True)) as run:
        assert await run.heard("two", "group") == "True True"


SUPERVISED = f"""
import sys
from mdtool.core.lifecycle import run_service
from mdtool.services.supervisor.programs import Program
from mdtool.services.supervisor.supervisor import Supervisor

names = ["one", "two", "three"]
command = [sys.executable, "-c", {SERVICE!r}]
programs = [Program(name, [*command, name], stop_s=60.0) for name in names]
styles = {{n: lambda line, n=n: n + " " + line for n in names}}
report = lambda addresses: print("ready", file=sys.stderr, flush=True)
sys.exit(run_service(Supervisor(programs, styles, report), within_s=60))
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs process descriptors (Linux)")
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 0), (signal.SIGINT, 130)]
)
def test_however_the_supervisor_ends_no_child_is_left(number, status):
    with ChildProcess(
        [sys.executable, "-c", SUPERVISED], stderr=subprocess.PIPE, text=True
    ) as supervisor:
        lines = [next(supervisor.stderr).split() for _ in range(4)]
        pids = [int(line[2]) for line in lines if "pid" in line]
        assert len(pids) == 3
        watched = [os.pidfd_open(pid) for pid in pids]
        supervisor.send_signal(number)
        for descriptor in watched:
            select.select([descriptor], [], [])
            os.close(descriptor)
        supervisor.stderr.read()
    assert supervisor.returncode == status


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "has ended"), (1, "failed with exit status 1"), (-9, "was killed by SIGKILL")],
)
def test_how_a_process_ended_in_words(status, words):
    assert ended(status) == words
