"""What was meant by an option that a command does not have."""

from __future__ import annotations

import difflib
from typing import Any, Final

import typer

_HERE: Final = {
    **dict.fromkeys(("--port", "--http-port", "--ws-port", "-p"), ("--port", "--gateway-port")),
    **dict.fromkeys(("--host", "--http-host"), ("--host", "--gateway-host")),
    **dict.fromkeys(("--listen", "--bind", "--address"), ("--host", "--port", "--gateway-port")),
    "--grpc-port": ("--aggregate-port", "--port"),
    "--tcp-port": ("--serve-tcp-port", "--port"),
    **dict.fromkeys(("--format", "--type", "--output-format"), ("--json", "--csv", "--dbn")),
    **dict.fromkeys(("--out", "--out-file", "--outfile", "--to"), ("--output",)),
    **dict.fromkeys(("--file", "--input", "--in", "-i"), ("--replay", "--book", "--live")),
    **dict.fromkeys(("--count", "--head", "--max", "-n"), ("--limit", "--ticks")),
    **dict.fromkeys(("--symbol", "--instrument", "--instruments", "--ticker"), ("--symbols",)),
    **dict.fromkeys(("--from", "--since"), ("--start",)),
    "--until": ("--end",),
    **dict.fromkeys(("--bars", "--bar", "--period", "--timeframe"), ("--interval",)),
    **dict.fromkeys(("--seconds", "--for"), ("--duration",)),
    "--levels": ("--depth",),
    **dict.fromkeys(("--source", "--exchange", "--venue"), ("--ingest", "--dataset")),
    **dict.fromkeys(("--db", "--database", "--storage"), ("--store",)),
    **dict.fromkeys(("--kafka", "--broker", "--brokers"), ("--bus",)),
    **dict.fromkeys(("--prefix", "--root-path"), ("--base-path",)),
    **dict.fromkeys(("--cors", "--origins"), ("--allowed-origins",)),
}
"""Names that options have elsewhere, and those here that do the same, of commands with them."""
_OF_ARGUMENTS: Final = {
    **dict.fromkeys(("--file", "--input", "--in", "-i"), ("FILE", "INPUT")),
    **dict.fromkeys(("--host", "--port", "--address"), ("HOST:PORT",)),
    **dict.fromkeys(("--symbol", "--symbols"), ("SYMBOL",)),
    **dict.fromkeys(("--source", "--exchange"), ("SOURCE",)),
}
"""Names of options elsewhere, and those of the arguments that are given instead."""
_BEFORE: Final = frozenset({"--config", "--debug", "--log-format", "--log-level", "--version"})
"""Options of `mdtool` itself, which precede the command."""
_LEAST_ALIKE: Final = 0.7


def message_of(error: typer.TyperException) -> str | None:
    """Return the message of an option that a command does not have, None of other errors."""
    option = getattr(error, "option_name", None)
    if not option:
        return None
    hint = _hint(option, getattr(error, "ctx", None))
    return f"{option}: no such option" + (f"; {hint}" if hint else "")


def _hint(option: str, context: Any) -> str:
    """Return what to do instead, empty where nothing is near."""
    if context is None:
        return ""
    if option in _BEFORE and context.parent is not None:
        return f"it precedes the command: mdtool {option} ... {context.info_name}"
    parameters = context.command.params
    for parameter in parameters:
        named = parameter.metavar or "" if parameter.param_type_name == "argument" else ""
        if any(name in named for name in _OF_ARGUMENTS.get(option, ())):
            return f"give {named.strip('[]{}.')} without an option"
    names = [name for each in parameters if each.param_type_name == "option" for name in each.opts]
    if here := [name for name in _HERE.get(option, ()) if name in names]:
        return f"did you mean {' or '.join(here)}?"
    bare = {name.lstrip("-"): name for name in names}
    close = difflib.get_close_matches(option.lstrip("-"), bare, n=1, cutoff=_LEAST_ALIKE)
    return f"did you mean {bare[close[0]]}?" if close else ""
