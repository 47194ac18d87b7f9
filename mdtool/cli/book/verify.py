"""`mdtool book verify`: what does not fit in a stream of MBO records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from mdtool.cli.filter_options import RangeOptions
from mdtool.cli.progress import Progress
from mdtool.core.errors import CheckError, CorruptStreamError, InputError, UsageError
from mdtool.core.units import UNDEF_TIMESTAMP, format_time

if TYPE_CHECKING:
    from mdtool.core.instruments import Instruments
    from mdtool.engine.book.verify import Finding, Verifier

_ROWS_AT_MOST: Final = 50


def verify(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT", help="DBN files of MBO records, or - for stdin."),
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
    instrument).

    A file with some instruments of a channel lacks the sequence numbers of the others. Jumps are
    therefore gaps only where numbers are otherwise consecutive, or with --all-jumps.

    Example: mdtool book verify day.dbn.zst --allow locked --allow unknown
    """
    from mdtool.core.dtypes import MBO
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
                if batch.records.dtype == MBO:
                    verifier.update(batch)
                progress.show(verifier.records, source.bytes_read)
        except CorruptStreamError as broken:
            error = broken
    report = _report(source.name, verifier, source.instruments, allowed)
    if as_json:
        print(json.dumps(report))
    else:
        _print_tables(report)
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


def _report(
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
            "publisher_id": view.publisher_id,
            "instrument_id": view.instrument_id,
        }
    else:
        assert finding.channel is not None
        of = {
            "publisher_id": finding.channel.publisher_id,
            "channel_id": finding.channel.channel_id,
        }
    return {
        "kind": finding.kind,
        **of,
        "count": finding.count,
        "first_record": finding.first_record,
        "first_timestamp": format_time(finding.first_ts_ns & UNDEF_TIMESTAMP),
        "allowed": finding.kind in allowed,
    }


def _print_tables(report: dict[str, Any]) -> None:
    from rich.table import Table

    from mdtool.cli.book.reports import report_console

    console = report_console()
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
                found.get("symbol") or f"channel {found['channel_id']}",
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
