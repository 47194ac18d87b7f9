"""`mdtool info`: what DBN files are."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

import typer

from mdtool.core.units import parse_duration, parse_option

app = typer.Typer(add_completion=False)

_LISTED_AT_MOST: Final = 20


@app.command()
def info(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT", help="DBN files, folders or zips of them, or - for stdin."),
    ],
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Read all records: counts, first and last times, gaps."),
    ] = False,
    gap: Annotated[
        str,
        typer.Option(
            metavar="DURATION", help="With --deep: a longer time without records is a gap."
        ),
    ] = "1h",
    as_json: Annotated[
        bool, typer.Option("--json", "-J", help="One JSON object a line for each INPUT.")
    ] = False,
) -> None:
    """Show what DBN files are: dataset, schemas, symbols and ids by date, version, compression.

    The header and the first records are read; with --deep, all records are.

    Example: mdtool info sample_data/mbo.dbn.zst

    Example: mdtool info --deep --gap 5m --json sample_data/mbo.dbn.zst
    """
    from mdtool.adapters.dbn_files import dbn_files
    from mdtool.adapters.dbn_info import StreamInfo

    gap_ns = parse_option("--gap", parse_duration, gap)
    for path in dbn_files(inputs):
        found = StreamInfo(path, deep, gap_ns)
        report = found.as_json()
        print(json.dumps(report) if as_json else "\n".join(_lines(report)), flush=True)
        if found.error is not None:
            raise found.error


def _lines(report: dict[str, Any]) -> list[str]:
    """Return a report as lines of text for people."""
    lines = [report["input"]]
    for key, value in report.items():
        text, listed = _text(value)
        if text and key != "input":
            lines.append(f"  {key.replace('_', ' '):<16}{text}")
            lines += [f"    {line}" for line in listed]
    return lines


def _text(value: Any) -> tuple[str, list[str]]:
    """Return a value as text, and as lines where it is a table."""
    match value:
        case bool():
            return "yes" if value else "no", []
        case int():
            return f"{value:,}", []
        case dict():
            return ", ".join(f"{name} {count:,}" for name, count in value.items()), []
        case [dict(), *_]:
            rows = ["  ".join(each or "" for each in row.values()) for row in _few(value)]
            more = len(value) - len(rows)
            return f"{len(value):,}", [*rows, *[f"and {more:,} more: --json has all"] * (more > 0)]
        case list():
            more = len(value) - _LISTED_AT_MOST
            return ", ".join(_few(value)) + f" and {more:,} more" * (more > 0), []
        case _:
            return "" if value is None else str(value), []


def _few(values: list[Any]) -> list[Any]:
    return values[:_LISTED_AT_MOST]
