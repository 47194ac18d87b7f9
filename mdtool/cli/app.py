"""The `mdtool` command: its subcommands, and the exit status and message of an error."""

from __future__ import annotations

import errno
import gc
import importlib
import inspect
import logging
import os
import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Final, NoReturn

import typer

from mdtool.cli.mistyped import message_of
from mdtool.cli.options import ADVANCED, CommandGroup
from mdtool.cli.values import convert_plainly
from mdtool.core import interrupts, logs
from mdtool.core.config import CONFIG_VARIABLE, load, stray_variables
from mdtool.core.data_folder import home
from mdtool.core.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    MdtoolError,
)
from mdtool.core.logs import LogConfig

_logger = logging.getLogger(__name__)

COMMANDS: Final = {
    "replay-dbn": "mdtool.cli.replay_dbn",
    "simulate": "mdtool.cli.simulate",
    "ingest": "mdtool.cli.ingest",
    "info": "mdtool.cli.info",
    "digest": "mdtool.cli.digest",
    "aggregate": "mdtool.cli.aggregate",
    "vwap": "mdtool.cli.vwap",
    "book": "mdtool.cli.book",
    "detect": "mdtool.cli.detect",
    "send": "mdtool.cli.send",
    "store": "mdtool.cli.store",
    "serve-tcp": "mdtool.cli.serve_tcp",
    "gateway": "mdtool.cli.gateway",
    "live-gateway": "mdtool.cli.live_gateway",
    "watch": "mdtool.cli.watch",
    "serve": "mdtool.cli.serve",
    "token": "mdtool.cli.token",
    "tls": "mdtool.cli.tls",
    "config": "mdtool.cli.config",
    "bench": "mdtool.cli.bench",
}
"""Each subcommand's module, whose `app` is imported on first use."""

_VALUE_NAMES: Final = {"int": "N", "float": "X", "str": "TEXT", "bool": ""}
_OF_THE_MACHINE: Final = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS),
        *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOENT, errno.ENAMETOOLONG),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN),
    }
)
"""Errors of system calls that a machine causes: what is missing, full, or not permitted."""
_LINE_BREAK: Final = re.compile(r"(?<!\n)\n(?!\n)")
"""A line break within a paragraph."""
_STYLE: Final = re.compile(r"(?<!\\)\[(?=[a-z#/@][^\[]*?\])")
"""Where rich would take text in brackets, such as a section of the settings file, for a style."""


class _LazyGroup(CommandGroup):
    """Imports a subcommand's module when that subcommand, or the list of all, is needed."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the base class's
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = typer.main.get_command(importlib.import_module(COMMANDS[cmd_name]).app)
        command.name = cmd_name
        _lay_out(command)
        return command


def _lay_out(command: Any) -> None:
    """Fit a command's help text to narrow terminals.

    Line breaks within paragraphs are removed, and option values get short names, so that the names
    of options are not truncated.
    """
    is_short = not {*_HELP_FLAGS}.isdisjoint(sys.argv) and _HELP_ALL not in sys.argv
    is_shortened = False
    if command.help:
        text = _LINE_BREAK.sub(" ", inspect.cleandoc(command.help))
        command.help = _STYLE.sub(r"\\[", text)
    for parameter in command.params:
        if getattr(parameter, "help", None):
            parameter.help = _STYLE.sub(r"\\[", parameter.help)
        if getattr(parameter, "rich_help_panel", None) == ADVANCED:
            parameter.hidden |= is_short
            is_shortened |= is_short
        if parameter.param_type_name == "option" and parameter.metavar is None:
            parameter.metavar = _VALUE_NAMES.get(parameter.bare_type())
    if is_shortened:
        command.epilog = f"{_HELP_ALL} shows the advanced settings too."
    for subcommand in getattr(command, "commands", {}).values():
        _lay_out(subcommand)


_HELP_ALL: Final = "--help-all"
_HELP_FLAGS: Final = ("-h", "--help")
_LOG: Final = LogConfig()
_TRACED: Final = frozenset({"serve-tcp", "aggregate", "gateway", "serve"})
"""Commands whose services trace batches or requests."""

app = typer.Typer(
    name="mdtool",
    cls=_LazyGroup,
    no_args_is_help=True,
    context_settings={"help_option_names": [*_HELP_FLAGS, _HELP_ALL]},
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from mdtool import __version__

        typer.echo(f"mdtool {__version__}")
        raise typer.Exit


@app.callback()
def _settings(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback handles it
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help="Settings file; by default ./mdtool.toml.")
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT", help=rf"Log lines as text or json. \[default: {_LOG.format}]"
        ),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL", help=rf"debug, info, warning or error. \[default: {_LOG.level}]"
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Replay, simulate, ingest, aggregate, serve and measure streams of market data.

    Commands pipe into each other: mdtool replay-dbn f.dbn | mdtool aggregate - --interval 1m
    """
    if config is not None:
        os.environ[CONFIG_VARIABLE] = config
    if not any(
        flag in sys.argv for flag in (*_HELP_FLAGS, _HELP_ALL)
    ):  # --help works with wrong settings too
        level = "debug" if debug else log_level
        log = load(LogConfig, "log", {"format": log_format, "level": level})
        logs.configure(log.format, log.level)
        context.obj = log
        if context.invoked_subcommand in _TRACED:
            _trace(context, context.invoked_subcommand)
        if strays := stray_variables():
            _warn_of(strays)


def _trace(context: typer.Context, service: str) -> None:
    """Trace what the command does, where the settings say so."""
    from mdtool.core.tracing import TraceConfig

    config = load(TraceConfig, "trace", {})
    if config.endpoint:
        from mdtool.adapters.otlp import tracing_to

        context.with_resource(tracing_to(config, service))


def _warn_of(strays: Mapping[str, str]) -> None:
    """Report variables that are no settings, unless a supervisor has."""
    from mdtool.core.lifecycle import LIFELINE_FD

    if LIFELINE_FD not in os.environ:
        for name, hint in strays.items():
            _logger.warning("%s: ignored, no such setting%s", name, hint)


def main() -> NoReturn:
    """Run the command line, and end the process with the exit status of its outcome."""
    if sys.stdout is None:  # the next file opened would get its descriptor, and its output
        sys.exit(
            _report("standard output: is closed; redirect it, such as to /dev/null", EXIT_FAILED)
        )
    if "--install-completion" in sys.argv and home() is None:
        sys.exit(_report("--install-completion: this user has no home; set HOME", EXIT_FAILED))
    convert_plainly()
    try:
        returned: Any = app(prog_name="mdtool", standalone_mode=False)
        sys.stdout.flush()
        status = returned if isinstance(returned, int) else EXIT_OK
    except MdtoolError as error:
        status = _report(str(error), error.exit_code)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context else ""
        message = message_of(error) or error.format_message()
        # Without arguments the help was printed instead of a message.
        status = _report(f"{message}{hint}", EXIT_USAGE) if message else EXIT_USAGE
    except (KeyboardInterrupt, typer.Abort):
        status = EXIT_INTERRUPTED
    except BrokenPipeError:
        status = _discard_output()
    except SystemExit as error:
        # Typer and rich, which prints the help, exit so on a broken pipe.
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        status = _discard_output()
    except OSError as error:
        status = _report(_describe(error), EXIT_FAILED)
    except Exception as error:  # noqa: BLE001 - the last resort
        status = _report(f"internal error: {type(error).__name__}: {error}", EXIT_FAILED)
    interrupts.release()
    gc.freeze()  # with numba loaded, the last garbage collection takes 0.2 s
    sys.exit(interrupts.outcome(status))


def _describe(error: OSError) -> str:
    """Return what a system call reported, as one line; an internal error if mdtool caused it."""
    if error.errno not in _OF_THE_MACHINE:
        return f"internal error: {type(error).__name__}: {error}"
    what = "this machine" if error.filename is None else os.fsdecode(error.filename)
    return f"{what}: {error.strerror}"


def _discard_output() -> int:
    """Redirect what is still buffered to nowhere, after a broken pipe; return the status."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_OK


def _report(message: str, status: int) -> int:
    """Print one line on stderr, after the traceback if --debug is given."""
    if "--debug" in sys.argv:
        import traceback

        traceback.print_exc()
    print(f"mdtool: {message}", file=sys.stderr)
    return status
