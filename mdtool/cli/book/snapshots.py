"""Where snapshots of order books go: JSON lines, depth records, or tables on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

from mdtool.cli.output_options import LimitReached, OutputOptions

if TYPE_CHECKING:
    import databento_dbn as dbn

    from mdtool.adapters.dbn_source import RecordSource
    from mdtool.adapters.outputs import Output
    from mdtool.cli.book.options import BookOptions
    from mdtool.core.instruments import Instruments
    from mdtool.engine.book.snapshot import Snapshot
    from mdtool.engine.book.state import Depth

_RECORDS_AT_ONCE: Final = 256


class SnapshotOutput(Protocol):
    """Takes snapshots one by one."""

    def write(self, snapshot: Snapshot) -> None:
        """Take one, and perhaps hold it back."""
        ...

    def flush(self) -> None:
        """Pass on what is held back."""
        ...

    def close(self) -> None:
        """Complete the output."""
        ...


class SnapshotSink:
    """Where a command's snapshots go. Its `with` block ends by itself once the limit is reached.

    Parameters
    ----------
    output : SnapshotOutput
        Closed at the block's end, unless an error ended it before anything was written: then no
        file was made either.
    limit : int, optional
        The most snapshots to write.
    is_wanted : callable
        Tells of a snapshot whether to write it.

    Attributes
    ----------
    snapshots : int
        How many were written.
    """

    def __init__(
        self, output: SnapshotOutput, limit: int | None, is_wanted: Callable[[Snapshot], bool]
    ) -> None:
        self.snapshots = 0
        self._output = output
        self._limit = limit
        self._is_wanted = is_wanted

    def write_all(self, snapshots: Iterable[Snapshot]) -> None:
        """Write those of some snapshots that are wanted.

        Raises
        ------
        LimitReached
            When the limit is: the others were left out, and no more are wanted.
        """
        for snapshot in filter(self._is_wanted, snapshots):
            self._output.write(snapshot)
            self.snapshots += 1
            if self.snapshots == self._limit:
                raise LimitReached

    def flush(self) -> None:
        """Pass on what is held back."""
        if self.snapshots:
            self._output.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self.snapshots or error is None:
            self._output.close()
        return isinstance(error, LimitReached)


class SnapshotRecords:
    """Writes snapshots as records of the best levels."""

    def __init__(self, output: Output, instruments: Instruments, depth: Depth) -> None:
        self._output = output
        self._instruments = instruments
        self._depth = depth
        self._held: list[Snapshot] = []

    def write(self, snapshot: Snapshot) -> None:
        """Take a snapshot; many are written together."""
        self._held.append(snapshot)
        if len(self._held) == _RECORDS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write what is held back."""
        import numpy as np

        from mdtool.core.instruments import Batch
        from mdtool.engine.book.snapshot import snapshot_records

        held, self._held = self._held, []
        if held:
            instrument = np.array([snapshot.instrument for snapshot in held], np.uint32)
            records = snapshot_records(held, self._depth)
            self._output.write(Batch(records, self._instruments, instrument))
        self._output.flush()

    def close(self) -> None:
        """Write what is held back, and close the output."""
        self.flush()
        self._output.close()


def open_snapshots(
    options: BookOptions, output: OutputOptions, source: RecordSource
) -> SnapshotSink:
    """Open where the snapshots of a source's books go, as the options ask.

    Raises
    ------
    UsageError, OutputError
        As `OutputOptions.open_output`, and when there are no records of the depth asked for.
    """

    def is_wanted(snapshot: Snapshot) -> bool:
        return source.instruments[snapshot.instrument].is_selected

    return SnapshotSink(_opened(options, output, source), output.limit, is_wanted)


def depth_metadata(metadata: dbn.Metadata, depth: Depth) -> dbn.Metadata:
    """Return the metadata of the depth records made of a stream of orders."""
    from mdtool.wire.dbn_metadata import with_schema

    return with_schema(metadata, f"mbp-{depth}")


def _opened(options: BookOptions, output: OutputOptions, source: RecordSource) -> SnapshotOutput:
    if output.is_table:
        from mdtool.cli.book.table import SnapshotTable

        return SnapshotTable(source.instruments, has_ladders=options.interval_ns is None)
    if not output.is_of_records:
        from mdtool.adapters.outputs.destination import Destination
        from mdtool.adapters.outputs.streams import SnapshotJsonOutput

        return SnapshotJsonOutput(Destination(output.path, output.force), source.instruments)
    depth = options.record_depth
    metadata = depth_metadata(source.metadata, depth)
    return SnapshotRecords(output.open_output(metadata), source.instruments, depth)
