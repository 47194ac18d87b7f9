"""`mdtool book INPUT`: books rebuilt from files or a pipe, and outputs of their snapshots."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Final, Protocol

from mdtool.cli.book.options import EVENT, BookOptions
from mdtool.cli.filter_options import RangeOptions
from mdtool.cli.output_options import LimitReached, OutputBlock, OutputOptions
from mdtool.cli.progress import Progress
from mdtool.core.errors import CorruptStreamError, InputError

if TYPE_CHECKING:
    import databento_dbn as dbn

    from mdtool.adapters.dbn_source import RecordSource
    from mdtool.adapters.outputs import Output
    from mdtool.core.batch import Batch
    from mdtool.core.instruments import Instruments
    from mdtool.engine.book.rebuild import Rebuild
    from mdtool.engine.book.sampling import Sampler
    from mdtool.engine.book.snapshot import Snapshot
    from mdtool.engine.book.state import Books, Depth

log = logging.getLogger(__name__)

_SCHEMA: Final = "mbo"
_RECORDS_AT_ONCE: Final = 256
_NAMED_AT_MOST: Final = 5


def show_books(
    inputs: list[str], options: BookOptions, selected: RangeOptions, output: OutputOptions
) -> None:
    """Rebuild the books of DBN files, or of `-`, and show them.

    Raises
    ------
    UsageError
        When the options contradict each other.
    InputError
        When an input cannot be read, is not MBO, or breaks off: after all that it has was shown.
    """
    options.check(inputs, selected, output)
    if options.emit == EVENT:
        _show_events(inputs, options, selected, output)
    else:
        _show_snapshots(inputs, options, selected, output)


def _show_events(
    inputs: list[str], options: BookOptions, selected: RangeOptions, output: OutputOptions
) -> None:
    import numpy as np

    from mdtool.core.dtypes import MBO
    from mdtool.core.instruments import with_room
    from mdtool.core.records import index_timestamps
    from mdtool.core.stream_warnings import warnings_in
    from mdtool.engine.book.consolidate import Consolidation
    from mdtool.engine.book.state import Books

    depth, start_ns = options.record_depth, selected.start_ns
    books, taken = Books(), 0
    shown = np.zeros(0, np.int64)
    with (
        _open(inputs, selected) as source,
        output.open(depth_metadata(source.metadata, depth), source.size_bytes is None) as sink,
        Progress("records", source.size_bytes, output.quiet or output.is_table) as progress,
        contextlib.closing(PartialNotice(books, source.instruments)) as notice,
    ):
        joined = Consolidation(source.instruments, depth) if options.consolidate else None
        for batch in source:
            if batch.records.dtype != MBO:
                if warnings_in(batch.records):
                    books.mark_partial()
                sink.write(batch)
                continue
            for events in books.events(batch, depth):
                notice.look()
                made = events if joined is None else joined.update(events)
                if start_ns is not None:
                    made = made[index_timestamps(made.records) >= start_ns]
                shown = with_room(shown, made.instrument, 0)
                shown[made.instrument] = 1
                sink.write(made)
            taken += len(batch)
            progress.show(taken, source.bytes_read)
            if source.size_bytes is None:
                sink.flush()
        of_symbol = np.arange(len(source.instruments))
        if joined is not None:
            of_symbol = source.instruments.first_of_symbol
        is_shown = np.isin(of_symbol, np.flatnonzero(shown))
        _report_empty(source, books, np.flatnonzero(is_shown).tolist(), depth, selected)


def _report_empty(
    source: RecordSource,
    books: Books,
    shown: Collection[int],
    depth: Depth,
    selected: RangeOptions,
) -> None:
    """Log the books of which there was no depth record; `shown` are the instruments of others."""
    if not len(books):
        log.warning(
            "%s: no MBO records%s, so that there is no book", source.name, _within(selected)
        )
        return
    empty = sorted(set(books.instruments().tolist()) - set(shown))
    if empty:
        named = [source.instruments[index].text for index in empty[:_NAMED_AT_MOST]]
        log.warning(
            "%s: no record of %s%s: nothing was traded, and the best %d levels did not change",
            source.name,
            ", ".join(named) + (", ..." if len(empty) > len(named) else ""),
            _within(selected),
            depth,
        )


def _show_snapshots(
    inputs: list[str], options: BookOptions, selected: RangeOptions, output: OutputOptions
) -> None:
    from mdtool.core.dtypes import MBO, SYMBOL_MAPPING

    source, rebuild = _entered(inputs, options, selected)
    with (
        source,
        open_snapshots(options, output, source) as sink,
        Progress("records", source.size_bytes, output.quiet or output.is_table) as progress,
        contextlib.closing(
            PartialNotice(rebuild.books, source.instruments, output.is_of_records)
        ) as notice,
    ):
        sampler = _sampler(options, selected, output, rebuild, source.instruments)
        error, taken = None, 0
        try:
            for batch in source:
                sink.write_all(sampler.update(batch))
                notice.look()
                if batch.records.dtype == MBO:
                    taken += len(batch)
                elif batch.records.dtype == SYMBOL_MAPPING:
                    sink.write_mappings(batch)
                progress.show(taken, source.bytes_read)
                if source.size_bytes is None:
                    sink.flush()
        except CorruptStreamError as broken:
            error = broken
        sink.write_all(sampler.close())
        _report(source.name, options, selected, sampler)
        if error is not None:
            raise error
        if sink.snapshots == 0 and options.interval_ns is None:
            raise InputError(f"{source.name}: {_why_nothing(options, selected)}")


def _open(inputs: list[str], selected: RangeOptions) -> RecordSource:
    """Open what builds the books: also what comes before --start, which is only not shown."""
    return dataclasses.replace(selected, start=None).open(inputs, _SCHEMA)


def _entered(
    inputs: list[str], options: BookOptions, selected: RangeOptions
) -> tuple[RecordSource, Rebuild]:
    """Open the inputs up to --at, from a checkpoint where there is one, with the books so far.

    A checkpoint has the books of all symbols, of which the selected ones are shown.
    """
    from mdtool.adapters.dbn_select import Selection
    from mdtool.adapters.dbn_select import selected as of
    from mdtool.engine.book.rebuild import Rebuild

    at_ns, rebuild = options.at_ns, Rebuild()
    source: RecordSource
    if options.checkpoint_every is not None:
        from mdtool.adapters.book_checkpoints import CheckpointedSource

        source = CheckpointedSource(inputs[0], rebuild, options.checkpoint_every, at_ns)
    elif at_ns is not None and len(inputs) == 1:
        from mdtool.adapters.book_checkpoints import enter

        selection = selected.selection()
        entered = enter(inputs[0], at_ns, selection.symbols if selection else None)
        source, rebuild = entered or (_open(inputs, selected), rebuild)
    else:
        source = _open(inputs, selected)
    return of(source, None if at_ns is None else Selection(end_ns=at_ns + 1)), rebuild


def _sampler(
    options: BookOptions,
    selected: RangeOptions,
    output: OutputOptions,
    rebuild: Rebuild,
    instruments: Instruments,
) -> Sampler:
    from mdtool.engine.book.sampling import FinalSampler, IntervalSampler

    depth = options.snapshot_depth(output)
    consolidated = instruments if options.consolidate else None
    if options.interval_ns is not None:
        return IntervalSampler(
            options.interval_ns, depth, selected.start_ns, rebuild, options.orders, consolidated
        )
    return FinalSampler(depth, rebuild, options.orders, consolidated)


def _report(name: str, options: BookOptions, selected: RangeOptions, sampler: Sampler) -> None:
    """Log what the end of the stream leaves open."""
    events = sampler.rebuild.events
    if events.forced:
        log.warning("%s: %d records are shown although their event has no end", name, events.forced)
    if len(events.held) and options.at is None and selected.end is None:
        log.warning(
            "%s: ends within an event: its last %d records are in no book", name, len(events.held)
        )


def _within(selected: RangeOptions) -> str:
    start = f" from {selected.start} on" if selected.start else ""
    return start + (f" before {selected.end}" if selected.end else "")


def _why_nothing(options: BookOptions, selected: RangeOptions) -> str:
    of = f" of {selected.symbols}" if selected.symbols else ""
    if options.at is not None:
        return f"no event{of} had ended by {options.at}"
    return f"no event{of} ends in it, so that there is no book"


class SnapshotOutput(Protocol):
    """Takes snapshots one by one."""

    def write(self, snapshot: Snapshot) -> None:
        """Take one, and perhaps hold it back."""
        ...

    def write_mappings(self, mappings: Batch) -> None:
        """Write symbol mapping records, if the output is of records."""
        ...

    def flush(self) -> None:
        """Write what is buffered."""
        ...

    def close(self) -> None:
        """Complete the output."""
        ...


class SnapshotSink(OutputBlock):
    """The sink of a command's snapshots.

    Parameters
    ----------
    output : SnapshotOutput
    options : OutputOptions
        With the file that is written, and the most snapshots to write.
    is_wanted : callable
        Returns whether to write a snapshot.
    is_endless : bool
        As `OutputBlock`.

    Attributes
    ----------
    snapshots : int
        How many were written.
    """

    def __init__(
        self,
        output: SnapshotOutput,
        options: OutputOptions,
        is_wanted: Callable[[Snapshot], bool],
        is_endless: bool,
    ) -> None:
        super().__init__(output, options.path, is_endless)
        self.snapshots = 0
        self._output = output
        self._limit = options.limit
        self._is_wanted = is_wanted

    def write_all(self, snapshots: Iterable[Snapshot]) -> None:
        """Write the selected ones of some snapshots.

        Raises
        ------
        LimitReached
            When the limit is reached: further snapshots are not needed.
        """
        for snapshot in filter(self._is_wanted, snapshots):
            self._is_begun = True
            with self.writing():
                self._output.write(snapshot)
            self.snapshots += 1
            if self.snapshots == self._limit:
                raise LimitReached

    def write_mappings(self, mappings: Batch) -> None:
        """Write the symbol mapping records of a live stream, which hold for later snapshots."""
        self._output.write_mappings(mappings)

    def flush(self) -> None:
        """Write what is buffered."""
        if self.snapshots:
            with self.writing():
                self._output.flush()


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

    def write_mappings(self, mappings: Batch) -> None:
        """Write symbol mapping records, after the snapshots before them."""
        self.flush()
        self._output.write(mappings)

    def flush(self) -> None:
        """Write what is buffered."""
        import numpy as np

        from mdtool.core.batch import Batch
        from mdtool.engine.book.snapshot import snapshot_records

        held, self._held = self._held, []
        if held:
            instrument = np.array([snapshot.instrument for snapshot in held], np.uint32)
            records = snapshot_records(held, self._depth)
            self._output.write(Batch(records, self._instruments, instrument))
        self._output.flush()

    def close(self) -> None:
        """Write what is buffered, and close the output."""
        self.flush()
        self._output.close()


def open_snapshots(
    options: BookOptions, output: OutputOptions, source: RecordSource
) -> SnapshotSink:
    """Open where the snapshots of a source's books go, as the options ask.

    Raises
    ------
    UsageError, OutputError
        As `OutputOptions.open_output`, and when there are no records of the requested depth.
    """

    def is_wanted(snapshot: Snapshot) -> bool:
        return source.instruments[snapshot.instrument].is_selected

    opened = _opened(options, output, source)
    return SnapshotSink(opened, output, is_wanted, source.size_bytes is None)


def depth_metadata(metadata: dbn.Metadata, depth: Depth) -> dbn.Metadata:
    """Return the metadata of the depth records made of a stream of orders."""
    from mdtool.wire.dbn_metadata import derived

    return derived(metadata, f"mbp-{depth}")


def _opened(options: BookOptions, output: OutputOptions, source: RecordSource) -> SnapshotOutput:
    if output.is_table:
        from mdtool.cli.book.table import SnapshotTable

        return SnapshotTable(
            source.instruments,
            has_ladders=options.interval_ns is None,
            is_deep=options.depth is not None and options.depth > 1,
        )
    if not output.is_of_records:
        from mdtool.adapters.outputs.streams import SnapshotJsonOutput

        destination = output.spec(source.size_bytes is None).open_destination()
        return SnapshotJsonOutput(destination, source.instruments)
    depth = options.record_depth
    metadata = depth_metadata(source.metadata, depth)
    opened = output.open_output(metadata, source.size_bytes is None)
    return SnapshotRecords(opened, source.instruments, depth)


class PartialNotice:
    """Logs the first partial books as soon as they are first seen, and their number at the end.

    Parameters
    ----------
    books : Books
    instruments : Instruments
    is_needed : bool
        Whether to log anything.
    """

    def __init__(self, books: Books, instruments: Instruments, is_needed: bool = True) -> None:
        from mdtool.engine.book.view import PartialBooks

        self._partial = PartialBooks()
        self._books = books
        self._instruments = instruments
        self._is_needed = is_needed

    def look(self) -> None:
        """Log the books that have turned out to be partial."""
        if not self._is_needed:
            return
        named = self._partial.count
        for instrument in self._partial.look(self._books)[: max(0, _NAMED_AT_MOST - named)]:
            log.warning(
                "%s: partial book: orders from before its stream began, or lost, are not in it",
                self._instruments[instrument].text,
            )

    def close(self) -> None:
        """Look once more, and log how many there were where not all were named."""
        self.look()
        if self._partial.count > _NAMED_AT_MOST:
            log.warning("%d books in all are partial", self._partial.count)
