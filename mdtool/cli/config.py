"""`mdtool config`: the settings in force and where each is from, and a sample of all of them."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from mdtool.cli.completion import one_of
from mdtool.core.config import SECTIONS, Origin, did_you_mean, origins, range_of
from mdtool.core.errors import UsageError

app = typer.Typer(add_completion=False)

_CLASSES: Final = {
    "serve": "mdtool.services.supervisor.config:ServeConfig",
    "serve-tcp": "mdtool.services.ingest.config:IngestConfig",
    "aggregate": "mdtool.services.aggregator.config:AggregatorConfig",
    "vwap": "mdtool.services.vwap.config:VwapConfig",
    "gateway": "mdtool.services.gateway.config:GatewayConfig",
    "detect": "mdtool.services.alerts.config:DetectConfig",
    "replay-dbn": "mdtool.services.replay.config:SenderConfig",
    "book": "mdtool.services.book.config:ReceiverConfig",
    "live-gateway": "mdtool.services.live_gateway.config:LiveGatewayConfig",
    "auth": "mdtool.adapters.identity.config:AuthConfig",
    "audit": "mdtool.adapters.audit:AuditConfig",
    "ingest": "mdtool.adapters.live.config:SourceConfig",
    "send": "mdtool.services.send.config:SendConfig",
    "store": "mdtool.services.store.config:StoreConfig",
    "log": "mdtool.core.logs:LogConfig",
    "stop": "mdtool.core.lifecycle:StopConfig",
    "connect": "mdtool.adapters.rpc:ConnectConfig",
    "metrics": "mdtool.services.metrics:MetricsConfig",
    "tls": "mdtool.core.tls:TlsConfig",
    "trace": "mdtool.core.tracing:TraceConfig",
}
"""The settings of each section."""
_TABLES: Final[Mapping[str, Mapping[str, tuple[str, Any]]]] = {
    "roles.desk": {
        "read": ("Patterns of symbols that may be read.", ["ES*", "NQ*"]),
        "write": ("Those that may be sent.", ["ES*"]),
        "deny": ("Those that may be neither.", ["*TEST"]),
        "feeds": ("The feeds that may be read; by default all.", ["trades", "bars"]),
        "rights": ("What else is allowed.", ["metrics"]),
        "quota": ("The class of quotas.", "desk"),
        "certificates": ("Clients whose certificates have these names have the role.", ["desk-*"]),
    },
    "quotas.desk": {
        "requests-per-s": ("Requests a second from memory.", 1_000),
        "upstream-per-s": ("Requests a second that go upstream.", 100),
        "upstream-burst": ("How many of those at once.", 200),
        "connections": ("Connections at the same time.", 100),
        "subscriptions": ("Subscriptions at the same time.", 10_000),
        "ticks-per-s": ("Ticks a second that are taken; more wait with their sender.", 50_000),
        "bytes-per-s": (
            "Bytes a second that are sent and received; what is more waits.",
            10_000_000,
        ),
    },
}
"""Sections that have any name, with an example of each of their settings."""
_HIDDEN: Final = "***"


@app.command(context_settings={"ignore_unknown_options": True})
def config(
    context: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SECTION [OPTION...]]",
            help=f"Only the settings of {', '.join(_CLASSES)}; with the options of a command, "
            "as it has them.",
            autocompletion=one_of(_CLASSES),
        ),
    ] = None,
    sample: Annotated[
        bool,
        typer.Option(
            "--sample",
            help="Print every setting, described, as a comment: with its default, or an example.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("-J", "--json", help="One JSON object a line, one line a setting.")
    ] = False,
) -> None:
    """Print the settings in force and the origin of each: a flag, the environment, the file.

    What is printed is a settings file itself. Passwords and secrets are hidden.

    Example: mdtool config

    Example: mdtool config gateway

    Example: mdtool config serve all --gateway-port 8088

    Example: mdtool config --sample > mdtool.toml
    """
    name, arguments = (command[0], command[1:]) if command else (None, [])
    if name is not None and name not in _CLASSES:
        raise UsageError(f"{name}: no such section{did_you_mean(name, SECTIONS)}")
    sections = list(_CLASSES) if name is None else [name]
    if sample:
        for section in sections:
            _print_sample(section, _class(section))
        if name is None:
            _print_tables()
        return
    # All of them before the first is printed: a setting that is not valid is all that is told.
    found = {section: _in_force(context, section, arguments) for section in sections}
    for section, values in found.items():
        if as_json:
            _print_json(section, values)
        else:
            _print_section(section, values)


def _in_force(context: typer.Context, section: str, arguments: list[str]) -> Mapping[str, Origin]:
    """Return the settings of a section, with their origins."""
    flags = _flags(context, section, arguments)
    values = origins(_class(section), section, flags)
    for switch in (key for key, value in flags.items() if value is False):
        values[switch] = Origin(False, f"--no-{_written(switch)}")
    if section == "log":
        values |= _logging(context)
    return values


def _class(section: str) -> type:
    return _of(_CLASSES[section])


def _of(place: str) -> type:
    module, _, name = place.partition(":")
    found: type = getattr(importlib.import_module(module), name)
    return found


def _flags(context: typer.Context, section: str, arguments: list[str]) -> Mapping[str, Any]:
    """Return the settings that the options of a command give."""
    if not arguments:
        return {}
    assert context.parent is not None
    group: Any = context.parent.command
    command = group.get_command(context.parent, section)
    if command is None:
        raise UsageError(f"{arguments[0]}: [{section}] is not a command and has no options")
    given = command.make_context(section, arguments, resilient_parsing=True).params
    fields = {field.name for field in dataclasses.fields(_class(section))}
    fields |= {field.metadata["formerly"] for field in dataclasses.fields(_class(section))}
    off = {name.removeprefix("no_"): False for name in given if given[name] and name[:3] == "no_"}
    return {name: value for name, value in {**given, **off}.items() if name in fields}


def _logging(context: typer.Context) -> Mapping[str, Origin]:
    """Return what the options before the command give the section of logs."""
    given = context.parent.params if context.parent else {}
    values = {
        name: Origin(given[f"log_{name}"], f"--log-{name}")
        for name in ("format", "level")
        if given.get(f"log_{name}")
    }
    return values | ({"level": Origin("debug", "--debug")} if given.get("debug") else {})


def _print_section(section: str, values: Mapping[str, Origin]) -> None:
    print(f"[{section}]")
    lines = {_line(name, given.value): given.origin for name, given in values.items()}
    width = min(max(map(len, lines)), 44)
    for line, origin in lines.items():
        print(f"{line:{width}}  # {origin}")
    print()


def _print_json(section: str, values: Mapping[str, Origin]) -> None:
    for name, given in values.items():
        value = _shown(name, given.value)
        row = {"section": section, "setting": _written(name), "value": value}
        print(json.dumps({**row, "origin": given.origin}))


def _print_sample(section: str, cls: type) -> None:
    print(f"[{section}]")
    for field in dataclasses.fields(cls):
        is_set = field.default is not None
        hints = range_of(field), "" if is_set else "not set by default; an example"
        about = "; ".join(filter(None, hints))
        print()
        print(_comment(field.metadata["help"] + (f" ({about})" if about else "")))
        print("# " + _line(field.name, field.default if is_set else field.metadata["example"]))
    print()


def _print_tables() -> None:
    """Print the sections that have any name, as comments, with DetectRule's defaults."""
    rules = {
        _written(field.name): (field.metadata["help"], field.default)
        for field in dataclasses.fields(_of("mdtool.engine.detect:DetectRule"))
    }
    for section, settings in {**_TABLES, 'detect."ES*"': rules}.items():
        print(f"# [{section}]")
        for name, (about, example) in settings.items():
            print()
            print(_comment(about))
            print(f"# {name} = {json.dumps(example)}")
        print()


def _comment(text: str) -> str:
    import textwrap

    return textwrap.fill(text, 80, initial_indent="# ", subsequent_indent="# ")


def _line(name: str, value: Any) -> str:
    """Return a setting as a line of TOML; one without a value as a comment."""
    if value is None:
        return f"# {_written(name)} ="
    return f"{_written(name)} = {json.dumps(_shown(name, value), ensure_ascii=False)}"


def _written(name: str) -> str:
    return name.replace("_", "-")


def _shown(name: str, value: Any) -> Any:
    """Return a value without what is secret in it."""
    if not isinstance(value, str) or not value:
        return value
    if name.endswith("secret"):
        return _HIDDEN
    try:
        password = urlsplit(value).password
    except ValueError:
        return _HIDDEN
    return value.replace(f":{password}@", f":{_HIDDEN}@") if password else value
