import inspect
import io
import os
import pty
import signal
import termios
from types import SimpleNamespace

import numpy as np
import pytest

from mdtool.cli import progress
from mdtool.cli.filter_options import FilterOptions, with_filter
from mdtool.cli.output_options import LimitReached, OutputOptions, Sink, with_output
from mdtool.cli.progress import Progress
from mdtool.core.dtypes import SYMBOL_MAPPING
from mdtool.core.errors import InputError, OutputError
from tests.reference import dbn_streams as streams
from tests.support.instruments import batch


class Memory:
    """An output that remembers."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []
        self.is_flushed = False
        self.is_closed = False

    def write(self, records) -> None:
        self.arrays.append(records)

    def flush(self) -> None:
        self.is_flushed = True

    def close(self) -> None:
        self.is_closed = True


class TestSink:
    def test_without_a_limit_it_takes_all(self):
        memory = Memory()
        with Sink(memory, None) as sink:
            sink.write(batch(streams.mbo(3)))
            sink.write(batch(streams.mbo(0)))
            sink.write(batch(streams.mbo(4)))
        assert [len(array) for array in memory.arrays] == [3, 4]
        assert sink.records == 7
        assert memory.is_closed

    @pytest.mark.parametrize("sizes", [[5, 5], [3, 2, 9], [10], [1, 1, 1, 1, 1, 1]])
    def test_the_block_ends_at_the_limit(self, sizes):
        memory = Memory()
        done = 0
        with Sink(memory, 5) as sink:
            for size in sizes:
                sink.write(batch(streams.mbo(size)))
                done += 1
        assert sum(len(array) for array in memory.arrays) == sink.records == 5
        assert done < len(sizes)
        assert memory.is_closed

    def test_who_has_no_block_is_told(self):
        sink = Sink(Memory(), 1)
        with pytest.raises(LimitReached):
            sink.write(batch(streams.mbo(2)))

    def test_what_a_stream_says_of_itself_does_not_count(self):
        memory = Memory()
        mapping = np.frombuffer(streams.mapping(1, "AAPL"), SYMBOL_MAPPING)
        with Sink(memory, 1) as sink:
            sink.write(batch(mapping))
            sink.write(batch(mapping))
            sink.write(batch(streams.mbo(2)))
        assert [len(array) for array in memory.arrays] == [1, 1, 1]
        assert sink.records == 1

    def test_an_error_closes_the_output_and_goes_on(self):
        memory = Memory()
        sink = Sink(memory, None)
        sink.write(batch(streams.mbo(1)))
        with pytest.raises(KeyboardInterrupt), sink:
            raise KeyboardInterrupt
        assert memory.is_closed

    @pytest.mark.parametrize("error", [KeyboardInterrupt, OutputError, ValueError])
    def test_a_file_of_a_finite_input_is_not_completed_after_an_error(self, error, caplog):
        memory = Memory()
        sink = Sink(memory, None, "out.csv")
        sink.write(batch(streams.mbo(1)))
        with pytest.raises(error), sink:
            raise error
        assert not memory.is_closed
        assert caplog.messages == ["out.csv: not written, because the command did not end"]

    def test_a_file_of_an_input_that_breaks_off_has_what_came_before(self):
        memory = Memory()
        sink = Sink(memory, None, "out.csv")
        sink.write(batch(streams.mbo(1)))
        with pytest.raises(InputError), sink:
            raise InputError
        assert memory.is_closed

    def test_an_interrupt_does_not_leave_a_record_of_an_endless_input_half_written(self):
        class Interrupted(Memory):
            def write(self, records) -> None:
                signal.raise_signal(signal.SIGINT)
                super().write(records)

            def close(self) -> None:
                signal.raise_signal(signal.SIGINT)
                super().close()

        memory = Interrupted()
        with pytest.raises(KeyboardInterrupt), Sink(memory, None, "out.csv", True) as sink:
            sink.write(batch(streams.mbo(1)))
        assert len(memory.arrays) == 1
        assert memory.is_closed

    def test_a_file_of_an_endless_input_that_cannot_be_written_is_not_completed(self):
        memory = Memory()
        sink = Sink(memory, None, "out.csv", True)
        sink.write(batch(streams.mbo(1)))
        with pytest.raises(OutputError), sink:
            raise OutputError
        assert not memory.is_closed

    @pytest.mark.parametrize(
        ("name", "grows"),
        [("o.csv", True), ("o.dbn", True), ("o.parquet", False), ("o.arrow", False)],
    )
    def test_of_an_endless_input_a_file_that_needs_its_end_appears_with_it(
        self, tmp_path, name, grows
    ):
        options = OutputOptions(path=str(tmp_path / name))
        with options.open(streams.metadata(), is_endless=True) as sink:
            for _ in range(20):
                sink.write(batch(streams.mbo(100_000)))
            assert (tmp_path / name).exists() == grows
        assert (tmp_path / name).exists()

    def test_an_error_before_the_first_record_leaves_no_trace(self):
        memory = Memory()
        sink = Sink(memory, None)
        sink.flush()
        with pytest.raises(KeyboardInterrupt), sink:
            raise KeyboardInterrupt
        assert not memory.is_flushed
        assert not memory.is_closed


def test_bundles_give_a_command_their_options_and_leave_it_its_own():
    @with_output
    @with_filter
    def command(files: list[str], selected: FilterOptions, output: OutputOptions, speed: int = 3):
        return files, selected, output, speed

    names = list(inspect.signature(command).parameters)
    assert names[:2] == ["files", "speed"]
    assert {"symbols", "start", "path", "limit", "pretty"} <= set(names)
    assert not {"selected", "output"} & set(names)
    given = dict.fromkeys(names) | {"files": ["f"], "speed": 5, "symbols": "A", "limit": 7}
    files, selected, output, speed = command(**given)
    assert (files, speed) == (["f"], 5)
    assert selected.symbols == "A"
    assert output.limit == 7


class Screen(io.StringIO):
    """A stream that may be a terminal, which people look at."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


class TestProgress:
    def shown(self, monkeypatch, steps, is_terminal=True, is_quiet=False) -> str:
        """Return what stands on stderr after counts at times in seconds."""
        screen, now_s = Screen(is_terminal), [0.0]
        monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=screen))
        monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
        with Progress("records", 1000, is_quiet) as shown:
            for at_s, count, bytes_read in steps:
                now_s[0] = at_s
                shown.show(count, bytes_read)
        return screen.getvalue()

    def test_work_of_a_second_shows_nothing(self, monkeypatch):
        assert self.shown(monkeypatch, [(0.9, 100, 1000)]) == ""

    def test_longer_work_shows_how_far_it_is_and_cleans_up(self, monkeypatch):
        steps = [(2.0, 100_000, 250), (2.1, 100_001, 251), (4.0, 200_000, 1000)]
        assert self.shown(monkeypatch, steps) == (
            "\r\x1b[K 25%  100,000 records, 50,000/s\r\x1b[K100%  200,000 records, 50,000/s\r\x1b[K"
        )

    @pytest.mark.parametrize(("is_terminal", "is_quiet"), [(True, True), (False, False)])
    def test_it_is_quiet_when_asked_or_when_nobody_looks(self, monkeypatch, is_terminal, is_quiet):
        assert self.shown(monkeypatch, [(5.0, 1, 1)], is_terminal, is_quiet) == ""

    @pytest.mark.parametrize("is_taken", [True, False])
    def test_it_leaves_a_terminal_alone_that_a_pager_has(self, monkeypatch, is_taken):
        """A pager, and the live view, read keys one by one."""
        master, slave = pty.openpty()
        modes = termios.tcgetattr(slave)
        modes[3] = modes[3] & ~termios.ICANON if is_taken else modes[3] | termios.ICANON
        termios.tcsetattr(slave, termios.TCSANOW, modes)
        now_s = [0.0]
        monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
        with os.fdopen(slave, "w") as terminal, os.fdopen(master, "rb", buffering=0) as screen:
            monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=terminal))
            with Progress("records") as shown:
                now_s[0] = 5.0
                shown.show(1, 1)
            terminal.write("end")
            terminal.flush()
            written = b""
            while not written.endswith(b"end"):
                written += screen.read(100)
        assert (written == b"end") == is_taken


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"path": "a.csv.zst"}, "csv.zst"),
        ({"path": "a.jsonl"}, "jsonl"),
        ({"path": "a.zst", "as_json": True}, "json.zst"),
        ({"path": "a.dbn.zst", "as_dbn": True}, "dbn.zst"),
        ({"path": "a.txt", "as_csv": True}, "csv"),
        ({"as_json": True}, "json"),
    ],
)
def test_formats_and_compression_of_files(options, wanted):
    assert OutputOptions(**options).format() == wanted
