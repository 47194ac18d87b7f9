"""Stores with several writers, and writers that are killed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mdtool.adapters.stores import open_history, open_store
from mdtool.adapters.stores.errors import (
    StoreClaimedError,
    StoreInterruptedError,
    StoreUnavailableError,
)
from tests.support.processes import ChildProcess
from tests.support.store_writer import TRADES
from tests.support.stores import NOON_NS, STORES, claim_when_free, run, share, step

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=STORES)
def url(request, tmp_path):
    with STORES[request.param](tmp_path) as new_url:
        yield new_url()


@contextlib.contextmanager
def writer(url: str, steps: int, *streams: str):
    """A process that writes, killed when the block ends if it has not ended itself."""
    command = [sys.executable, "-m", "tests.support.store_writer", url, str(steps), *streams]
    with ChildProcess(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_a_writer_that_is_killed_leaves_whole_steps_and_all_it_acknowledged(url):
    with open_store(url) as store:
        for kills in range(5):
            with writer(url, 10_000, "stream", "other") as process:
                assert process.stdout.readline() == "open\n"
                said = [process.stdout.readline() for _ in range(3 + 2 * kills)]
                process.kill()
                said += process.stdout
                acknowledged = dict(line.split() for line in said if line.endswith("\n"))

            state = store.load(10, 0)
            for stream, position in acknowledged.items():
                assert state.positions[stream] >= int(position)
            assert state.counts == {f"{name}.ticks": n for name, n in state.positions.items()}
            assert state.sessions["count"].tolist() == [state.positions["stream"]]
            totals = store.symbols()
            assert sum(each.trade_count for each in totals) == sum(state.positions.values())
            assert store.recount() == []
        assert state.positions["stream"] >= 5 * TRADES


def test_processes_that_write_the_same_and_other_streams_count_each_trade_once(url):
    steps = 15
    with open_store(url):  # so that it is there for all of them
        pass
    with contextlib.ExitStack() as running:
        processes = [
            running.enter_context(writer(url, steps, f"own-{number}", "shared"))
            for number in range(3)
        ]
        for process in processes:
            process.communicate()
            assert process.returncode == 0
    with open_history(url) as history:
        streams = {stream.stream_id: stream.next_sequence for stream in history.streams()}
        shared = streams.pop("shared")
        assert streams == {f"own-{number}": steps * TRADES for number in range(3)}
        assert shared % TRADES == 0
        assert steps * TRADES <= shared <= 3 * steps * TRADES
        trades = 3 * steps * TRADES + shared
        assert [each.trade_count for each in history.symbols()] == [trades // 2] * 2
        assert history.recount() == []


def test_a_market_is_held_until_its_process_has_ended_however_it_did(url):
    with open_store(url) as store:
        with writer(url, 0) as process:
            assert process.stdout.readline() == "open\n"
            with pytest.raises(StoreClaimedError):
                store.claim()
        claim_when_free(store)


def test_a_store_opened_by_many_at_once_is_created_once(url):
    at_once = threading.Barrier(6)
    is_made = threading.Event()
    problems = []

    def make(number: int) -> None:
        try:
            at_once.wait()
            with open_store(url) as store:
                store.write(step(["AAPL"], run(f"stream-{number}", 0, [(0, 1, 1, NOON_NS)])))
        except Exception as error:  # noqa: BLE001 - whatever it is, the test fails
            problems.append(error)

    def look() -> None:
        at_once.wait()
        with open_history(url) as history:
            while not is_made.is_set():
                try:
                    history.symbols()
                except StoreUnavailableError:
                    pass  # not yet
                except Exception as error:  # noqa: BLE001
                    problems.append(error)
                    return

    makers = [threading.Thread(target=make, args=[number]) for number in range(5)]
    looker = threading.Thread(target=look)
    for thread in (looker, *makers):
        thread.start()
    for thread in makers:
        thread.join()
    is_made.set()
    looker.join()
    assert problems == []
    with open_history(url) as history:
        assert history.symbols()[0].trade_count == 5


def test_pages_by_cursor_skip_and_repeat_nothing_while_others_write(url):
    count = 4_000 // share(url)
    crowd = [(0, 1, 1, NOON_NS + n // 1_000) for n in range(count)]
    has_read = threading.Event()
    with open_store(url) as store, open_history(url) as history:
        for stream in ("b", "d", "f"):
            store.write(step(["AAPL"], run(stream, 0, crowd)))
        numbers = {stream.number for stream in history.streams()}
        wanted = {(number, n) for number in numbers for n in range(count)}

        def write() -> None:
            with open_store(url) as other:
                first = 0
                while not has_read.is_set():
                    for stream in ("a", "c", "e"):
                        other.write(step(["AAPL"], run(stream, first, crowd[:200])))
                    first += 200

        thread = threading.Thread(target=write)
        thread.start()
        try:
            keys, before = [], None
            while len(page := history.page("AAPL", 37, before)):
                keys += [page.key(row) for row in range(len(page))]
                before = keys[-1]
        finally:
            has_read.set()
            thread.join()
    assert keys == sorted(set(keys), reverse=True)
    found = [(key.stream, key.sequence) for key in keys if key.stream in numbers]
    assert len(found) == len(wanted)
    assert set(found) == wanted


def test_an_interrupted_reader_reads_on(url):
    outcome, count = [], 50_000 // share(url)
    with open_store(url) as store, open_history(url) as history:
        store.write(step(["AAPL"], run("a", 0, [(0, 1, 1, NOON_NS)] * count)))

        def read() -> None:
            try:
                while True:
                    history.recount()
            except StoreInterruptedError as error:
                outcome.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        while thread.is_alive():
            history.interrupt()
            thread.join(0.02)
        assert len(outcome) == 1
        assert history.symbols()[0].trade_count == count
