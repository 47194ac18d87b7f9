"""`mdtool book verify` and `mdtool book diff`: what is wrong in a stream, and where two differ."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from mdtool.cli.filter_options import RangeOptions
from mdtool.cli.progress import Progress
from mdtool.core.errors import CheckError, CorruptStreamError, InputError, UsageError
from mdtool.core.publishers import publisher_name
from mdtool.core.units import UNDEF_TIMESTAMP, format_price, format_time

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from mdtool.adapters.dbn_source import RecordSource
    from mdtool.core.instruments import Instruments
    from mdtool.core.records import Records
    from mdtool.engine.book.diff import Divergence
    from mdtool.engine.book.verify import Finding, Verifier

_ROWS_AT_MOST: Final = 50
_PIPED_WIDTH: Final = 120


def verify(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="DBN files of MBO records, folders or zips of them, or - for stdin.",
        ),
    ],
    symbols: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Only these symbols, separated by commas.")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="Report findings of this kind without failing. Repeatable.",
        ),
    ] = None,
    all_jumps: Annotated[
        bool,
        typer.Option(
            "--all-jumps",
            help="Count every jump of a channel's sequence numbers as a gap, because INPUT has "
            "the whole channel.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", "-J", help="One JSON object instead of a table.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Rebuild the books of INPUT and report anomalies: exit 1 if there are any.

    Kinds: unknown_cancel, unknown_modify (the order id is not in the book; unknown is both),
    over_cancel, duplicate_add, side_change, unusable (no usable side, price, size or action),
    crossed and locked (at the end of an event), time_backwards (ts_recv, within an instrument),
    maybe_bad_book (flagged so by the publisher), sequence_gap, sequence_backwards (within an
    instrument); and what a live stream says of itself: slow_reader, skipped_records, error_record.

    A file with some instruments of a channel lacks the sequence numbers of the others. Jumps are
    therefore gaps only where numbers are otherwise consecutive, or with --all-jumps.

    Example: mdtool book verify sample_data/mbo.dbn.zst --allow locked --allow unknown
    """
    from mdtool.engine.book.verify import Verifier

    allowed = _allowed(allow or [])
    verifier = Verifier(all_jumps)
    error = None
    with (
        RangeOptions(symbols=symbols).open(inputs, "mbo") as source,
        Progress("records", source.size_bytes, quiet) as progress,
    ):
        try:
            for batch in source:
                verifier.update(batch)
                progress.show(verifier.records, source.bytes_read)
        except CorruptStreamError as broken:
            error = broken
    report = _verify_report(source.name, verifier, source.instruments, allowed)
    if as_json:
        print(json.dumps(report))
    else:
        _print_findings(report)
    if error is not None:
        raise error
    if verifier.records == 0:
        raise InputError(f"{source.name}: has no MBO records to verify")
    if not report["ok"]:
        kinds = {found["kind"] for found in report["findings"] if not found["allowed"]}
        raise CheckError(f"{source.name}: found {', '.join(sorted(kinds))}; see --allow")


def _allowed(names: Sequence[str]) -> frozenset[str]:
    """Return the kinds that options name."""
    from mdtool.engine.book.verify import ALIASES, KINDS

    kinds: set[str] = set()
    for name in names:
        kind = name.replace("-", "_")
        if kind not in KINDS and kind not in ALIASES:
            raise UsageError(f"--allow {name}: choose from {', '.join((*KINDS, *ALIASES))}")
        kinds.update(ALIASES.get(kind, (kind,)))
    return frozenset(kinds)


def _verify_report(
    name: str, verifier: Verifier, instruments: Instruments, allowed: frozenset[str]
) -> dict[str, Any]:
    """Return what was found as JSON takes it."""
    from mdtool.engine.book.view import views

    findings = [
        _described(finding, verifier, instruments, allowed) for finding in verifier.findings()
    ]
    return {
        "input": name,
        "ok": all(finding["allowed"] for finding in findings),
        "records": verifier.records,
        "books": len(verifier.books),
        "partial": [
            instruments[view.instrument].text for view in views(verifier.books) if view.is_partial
        ],
        "findings": findings,
        "channels": [
            {
                "publisher": publisher_name(channel.publisher_id),
                "publisher_id": channel.publisher_id,
                "channel_id": channel.channel_id,
                "steps": channel.steps,
                "jumps": channel.jumps,
                "missing": channel.missing,
                "counts_gaps": verifier.has_gaps(channel),
            }
            for channel in verifier.channels()
        ],
    }


def _described(
    finding: Finding, verifier: Verifier, instruments: Instruments, allowed: frozenset[str]
) -> dict[str, Any]:
    from mdtool.engine.book.view import BookView

    of: dict[str, Any]
    if finding.instrument is not None:
        view = BookView(verifier.books, finding.instrument)
        of = {
            "symbol": instruments[finding.instrument].text,
            "publisher": publisher_name(view.publisher_id),
            "publisher_id": view.publisher_id,
            "instrument_id": view.instrument_id,
        }
    elif finding.channel is not None:
        of = {
            "publisher": publisher_name(finding.channel.publisher_id),
            "publisher_id": finding.channel.publisher_id,
            "channel_id": finding.channel.channel_id,
        }
    else:
        assert finding.warning is not None
        of = {"text": finding.warning.text, "code": finding.warning.code}
    return {
        "kind": finding.kind,
        **of,
        "count": finding.count,
        "first_record": finding.first_record,
        "first_timestamp": format_time(finding.first_ts_ns & UNDEF_TIMESTAMP),
        "allowed": finding.kind in allowed,
    }


def _print_findings(report: dict[str, Any]) -> None:
    from rich.table import Table

    console = _console()
    console.print(
        f"{report['input']}: {report['records']:,} records; books: {report['books']:,}, partial: "
        f"{len(report['partial']):,}"
    )
    findings = sorted(report["findings"], key=lambda found: -found["count"])
    if findings:
        table = Table("of", "kind")
        table.add_column("count", justify="right")
        table.add_column("first record", justify="right")
        table.add_column("received")
        table.add_column("allowed")
        for found in findings[:_ROWS_AT_MOST]:
            table.add_row(
                _of(found),
                found["kind"],
                f"{found['count']:,}",
                f"{found['first_record']:,}",
                found["first_timestamp"],
                "yes" if found["allowed"] else "",
            )
        console.print(table)
        if len(findings) > _ROWS_AT_MOST:
            console.print(f"and {len(findings) - _ROWS_AT_MOST:,} more: --json has all")
    else:
        console.print("nothing found")
    for channel in report["channels"]:
        if channel["jumps"] and not channel["counts_gaps"]:
            console.print(
                f"channel {channel['channel_id']}: sequence numbers jump in {channel['jumps']:,} "
                f"of {channel['steps']:,} steps, as where a file has part of a channel: no gaps"
            )


def _of(found: dict[str, Any]) -> str:
    if "text" in found:
        return f"stream: {found['text']}"
    return found.get("symbol") or f"channel {found['channel_id']}"


def diff(
    ours: Annotated[str, typer.Argument(metavar="OURS", help="A DBN file, or - for stdin.")],
    theirs: Annotated[
        str, typer.Argument(metavar="THEIRS", help="Another DBN file, or - for stdin.")
    ],
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD",
            help="A field to ignore, such as ts_in_delta. Repeatable.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", "-J", help="One JSON object instead of a table.")
    ] = False,
) -> None:
    """Compare two mbp-10 or two mbp-1 streams: exit 0 if all records are equal, else 1.

    Shows the first record that differs, field by field.

    Example: mdtool book sample_data/mbo.dbn.zst --emit event | mdtool book diff -
    book.mbp-10.dbn.zst
    """
    from mdtool.adapters.dbn_files import open_merged
    from mdtool.engine.book.diff import Comparison

    if ours == theirs == "-":
        raise UsageError("standard input can be read once; give '-' once")
    with open_merged([ours]) as left, open_merged([theirs]) as right:
        dtype = _common_layout(left, right)
        comparison = Comparison(dtype, _fields(dtype, ignore or []))
        found = comparison.run(_records(left, dtype), _records(right, dtype))
        report = _diff_report(left.name, right.name, comparison.equal, found)
    if as_json:
        print(json.dumps(report))
    else:
        _print_divergence(report)
    if found is not None:
        raise CheckError(f"{left.name} and {right.name} differ at record {found.record:,}")


def _common_layout(ours: RecordSource, theirs: RecordSource) -> np.dtype[np.void]:
    """Return the layout of the records of both.

    Raises
    ------
    InputError
        When one has others than mbp-10 or mbp-1, or they have different ones.
    """
    from mdtool.core.dtypes import MBP1, MBP10

    layouts = {"mbp-10": MBP10, "mbp-1": MBP1}
    for source in (ours, theirs):
        schema = str(source.metadata.schema)
        if schema not in layouts:
            hint = "; mdtool book FILE --emit event makes mbp-10 of it" if schema == "mbo" else ""
            raise InputError(f"{source.name}: is {schema}, neither mbp-10 nor mbp-1{hint}")
    schemas = str(ours.metadata.schema), str(theirs.metadata.schema)
    if schemas[0] != schemas[1]:
        raise InputError(
            f"{ours.name} is {schemas[0]}, {theirs.name} is {schemas[1]}: they cannot be compared"
        )
    return layouts[schemas[0]]


def _fields(dtype: np.dtype[np.void], names: list[str]) -> list[str]:
    fields = dtype.names or ()
    for name in names:
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UsageError(f"--ignore {name}: there is no such field{hint}")
    return names


def _records(source: RecordSource, dtype: np.dtype[np.void]) -> Iterator[Records]:
    """Yield the depth records of a stream, without its control records."""
    return (batch.records for batch in source if batch.records.dtype == dtype)


def _diff_report(ours: str, theirs: str, equal: int, found: Divergence | None) -> dict[str, Any]:
    """Return the outcome as JSON takes it."""
    report = {"ours": ours, "theirs": theirs, "equal_records": equal, "equal": found is None}
    if found is None:
        return report
    names = found.ours.dtype.names or ()
    shown = [name for name in names if not _is_of_level(name) or name in found.fields]
    return report | {
        "record": found.record,
        "fields": [
            {
                "field": name,
                "ours": _text(found.ours, name),
                "theirs": _text(found.theirs, name),
                "differs": name in found.fields,
            }
            for name in shown
        ],
    }


def _is_of_level(name: str) -> bool:
    return name[-2:].isdigit()


def _text(records: Records, name: str) -> str | None:
    """Return a field of the only record as people read it, None where there is no record."""
    if len(records) == 0:
        return None
    value = records[name][0]
    if name in {"ts_event", "ts_recv"}:
        return format_time(int(value))
    if name == "price" or "_px_" in name:
        return format_price(int(value))
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


def _print_divergence(report: dict[str, Any]) -> None:
    from rich.table import Table

    console = _console()
    if report["equal"]:
        console.print(f"equal: {report['equal_records']:,} records")
        return
    console.print(f"{report['equal_records']:,} records are equal; then")
    table = Table("field", report["ours"], report["theirs"], "")
    for field in report["fields"]:
        texts = ("(none)" if field[side] is None else field[side] for side in ("ours", "theirs"))
        style = "bold red" if field["differs"] else None
        table.add_row(field["field"], *texts, "differs" if field["differs"] else "", style=style)
    console.print(table)


def _console() -> Console:
    """Return a console as wide as the terminal, or of a fixed width when piped."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _PIPED_WIDTH
    return Console(soft_wrap=True, highlight=False, width=width)
