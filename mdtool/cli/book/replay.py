"""`mdtool book INPUT`: books rebuilt from files or a pipe, and shown as the options ask."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from typing import TYPE_CHECKING, Final

from mdtool.cli.book.options import EVENT, BookOptions
from mdtool.cli.book.partial import PartialNotice
from mdtool.cli.book.snapshots import depth_metadata, open_snapshots
from mdtool.cli.filter_options import RangeOptions
from mdtool.cli.output_options import OutputOptions
from mdtool.cli.progress import Progress
from mdtool.core.errors import CorruptStreamError, InputError

if TYPE_CHECKING:
    from mdtool.adapters.dbn_source import RecordSource
    from mdtool.engine.book.rebuild import Rebuild
    from mdtool.engine.book.sampling import Sampler

log = logging.getLogger(__name__)

_SCHEMA: Final = "mbo"


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
    options.check(inputs, selected)
    if options.emit == EVENT:
        _show_events(inputs, options, selected, output)
    else:
        _show_snapshots(inputs, options, selected, output)


def _show_events(
    inputs: list[str], options: BookOptions, selected: RangeOptions, output: OutputOptions
) -> None:
    from mdtool.core.dtypes import MBO
    from mdtool.core.records import index_timestamps
    from mdtool.engine.book.state import Books

    depth, start_ns = options.record_depth, selected.start_ns
    books, taken = Books(), 0
    with (
        _open(inputs, selected) as source,
        output.open(depth_metadata(source.metadata, depth)) as sink,
        Progress("records", source.size_bytes, output.quiet or output.is_table) as progress,
        contextlib.closing(PartialNotice(books, source.instruments)) as notice,
    ):
        for batch in source:
            if batch.records.dtype != MBO:
                sink.write(batch)
                continue
            for made in books.events(batch, depth):
                notice.look()
                if start_ns is None:
                    sink.write(made)
                else:
                    sink.write(made[index_timestamps(made.records) >= start_ns])
            taken += len(batch)
            progress.show(taken, source.bytes_read)
            if source.size_bytes is None:
                sink.flush()


def _show_snapshots(
    inputs: list[str], options: BookOptions, selected: RangeOptions, output: OutputOptions
) -> None:
    from mdtool.core.dtypes import MBO

    source, rebuild = _entered(inputs, options, selected)
    with (
        source,
        open_snapshots(options, output, source) as sink,
        Progress("records", source.size_bytes, output.quiet or output.is_table) as progress,
        contextlib.closing(
            PartialNotice(rebuild.books, source.instruments, output.is_of_records)
        ) as notice,
    ):
        sampler = _sampler(options, selected, output, rebuild)
        error, taken = None, 0
        try:
            for batch in source:
                if batch.records.dtype == MBO:
                    sink.write_all(sampler.update(batch))
                    notice.look()
                    taken += len(batch)
                progress.show(taken, source.bytes_read)
                if sampler.is_over:
                    break
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
    """Open the inputs, at a checkpoint where --at lets it, with what had become of all before.

    A checkpoint has the books of all symbols: those that are wanted are told apart at the end.
    """
    from mdtool.engine.book.rebuild import Rebuild

    if options.checkpoint_every is not None:
        from mdtool.adapters.book_checkpoints import CheckpointedSource

        rebuild = Rebuild()
        return CheckpointedSource(inputs[0], rebuild, options.checkpoint_every), rebuild
    if options.at_ns is not None and len(inputs) == 1:
        from mdtool.adapters.book_checkpoints import enter

        selection = selected.selection()
        entered = enter(inputs[0], options.at_ns, selection.symbols if selection else None)
        if entered is not None:
            return entered
    return _open(inputs, selected), Rebuild()


def _sampler(
    options: BookOptions, selected: RangeOptions, output: OutputOptions, rebuild: Rebuild
) -> Sampler:
    from mdtool.engine.book.sampling import FinalSampler, IntervalSampler

    depth = options.snapshot_depth(output)
    if options.interval_ns is not None:
        return IntervalSampler(options.interval_ns, depth, selected.start_ns, rebuild)
    return FinalSampler(depth, options.at_ns, rebuild)


def _report(name: str, options: BookOptions, selected: RangeOptions, sampler: Sampler) -> None:
    """Say on the log what the end of the stream leaves open."""
    events = sampler.rebuild.events
    if events.forced:
        log.warning("%s: %d records are shown although their event has no end", name, events.forced)
    if len(events.held) and options.at is None and selected.end is None:
        log.warning(
            "%s: ends within an event: its last %d records are in no book", name, len(events.held)
        )


def _why_nothing(options: BookOptions, selected: RangeOptions) -> str:
    of = f" of {selected.symbols}" if selected.symbols else ""
    if options.at is not None:
        return f"no event{of} had ended by {options.at}"
    return f"no event{of} ends in it, so that there is no book"
