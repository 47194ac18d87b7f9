"""`mdtool book diff`: where two streams of depth records first differ."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdtool.core.errors import CheckError, InputError, UsageError
from mdtool.core.units import format_price, format_time

if TYPE_CHECKING:
    import numpy as np

    from mdtool.adapters.dbn_source import DbnSource
    from mdtool.core.records import Records
    from mdtool.engine.book.diff import Divergence


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

    Example: mdtool book day.mbo.dbn.zst --emit event | mdtool book diff - day.mbp-10.dbn.zst
    """
    from mdtool.adapters.dbn_files import open_source
    from mdtool.engine.book.diff import Comparison

    if ours == theirs == "-":
        raise UsageError("standard input can be read once; give '-' once")
    with open_source(ours) as left, open_source(theirs) as right:
        dtype = _common_layout(left, right)
        comparison = Comparison(dtype, _fields(dtype, ignore or []))
        found = comparison.run(_records(left, dtype), _records(right, dtype))
        report = _report(left.name, right.name, comparison.equal, found)
    if as_json:
        print(json.dumps(report))
    else:
        _print_report(report)
    if found is not None:
        raise CheckError(f"{left.name} and {right.name} differ at record {found.record:,}")


def _common_layout(ours: DbnSource, theirs: DbnSource) -> np.dtype[np.void]:
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


def _records(source: DbnSource, dtype: np.dtype[np.void]) -> Iterator[Records]:
    """Yield the depth records of a stream, without what it says about itself."""
    return (batch.records for batch in source if batch.records.dtype == dtype)


def _report(ours: str, theirs: str, equal: int, found: Divergence | None) -> dict[str, Any]:
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


def _print_report(report: dict[str, Any]) -> None:
    from rich.table import Table

    from mdtool.cli.book.reports import report_console

    console = report_console()
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
