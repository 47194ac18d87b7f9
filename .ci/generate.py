"""Write the generated files again: wire/_pb, completions, docs/cli.md, docs/metrics.md, dashboards.

With --check nothing is written, and the status is 1 when a file is out of date.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
PROTO: Final = ROOT / "proto"
PACKAGE: Final = ROOT / "mdtool" / "wire" / "_pb"

SHARED_PANELS: Final = {
    "Selection": "Commands that read records choose among them with these.",
    "Output": "Commands that write records have these. Without them, records are a table on a "
    "terminal, and DBN in a pipe.",
}
"""Option groups that many commands have, and what docs/cli.md says of each."""
SETTINGS: Final = ("Settings", "Advanced settings")
PREFACE: Final = """<!-- Written by .ci/generate.py from the code. -->
# Commands

`mdtool COMMAND --help` shows the same in a terminal. Option groups that several commands share are
described once: [Selection](#selection-options) and [Output](#output-options). Options under
**Settings** can also be in `mdtool.toml` and in the environment: see
[settings](operations.md#settings)."""
EXAMPLE: Final = "Example: "
METRICS: Final = """<!-- Written by .ci/generate.py from the code. -->
# Metrics

The gateway has its metrics for Prometheus at `/metrics` of its own port, the other services at
that of a port that `--metrics-port`, or `metrics-port` in their section of `mdtool.toml`, names:
off by default. It is of 127.0.0.1, or of `[metrics] host`, requires no token, and answers
`/livez` too. The answer is OpenMetrics where the request prefers that,
else text. Each has the metrics of its process too (`process_cpu_seconds_total`,
`process_resident_memory_bytes`, `process_open_fds`), and of Python's garbage collection
(`python_gc_*`). Workers of a gateway answer for all of them. How large the store is is measured
every ten seconds at most, while it is written.

[deploy/prometheus](../deploy/prometheus) has a configuration, recording rules and alerts, tested
by `promtool test rules`; [deploy/grafana/mdtool.json](../deploy/grafana/mdtool.json) is a
dashboard to import."""

LOG_EVENTS: Final = """<!-- Written by .ci/generate.py from the code. -->
# Events in logs

What services log, by the name in `event` of a line of JSON: see [logs.md](logs.md). One name
may have several messages and loggers; where a message has only values, the module names it."""


def protobuf() -> Iterator[tuple[Path, str]]:
    """Yield the modules that protoc makes of proto/, importing each other by their full names."""
    from grpc_tools import protoc

    sources = sorted(path.name for path in PROTO.glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        outputs = [f"--python_out={folder}", f"--pyi_out={folder}"]
        if protoc.main(["protoc", f"--proto_path={PROTO}", *outputs, *sources]):
            sys.exit("protoc failed")
        for path in sorted(Path(folder).iterdir()):
            text = re.sub(
                r"^import (\w+_pb2) as",
                r"from mdtool.wire._pb import \1 as",
                path.read_text(),
                flags=re.MULTILINE,
            )
            yield PACKAGE / path.name, text


def completions() -> Iterator[tuple[Path, str]]:
    """Yield a completion script for each shell."""
    from typer.completion import get_completion_script

    for shell in ("bash", "zsh", "fish"):
        script = get_completion_script(
            prog_name="mdtool", complete_var="_MDTOOL_COMPLETE", shell=shell
        )
        yield ROOT / "completions" / f"mdtool.{shell}", script.strip() + "\n"


def reference() -> Iterator[tuple[Path, str]]:
    """Yield docs/cli.md: every command with its options, shared groups once."""
    from typer import Context
    from typer.main import get_command

    from mdtool.cli.app import app

    root = Context(get_command(app), info_name="mdtool")
    commands = [*_below(root)]
    shared = {panel: _shared(panel, commands) for panel in SHARED_PANELS}
    parts = [PREFACE, _contents(commands)]
    parts += ["## Every command", "These go between `mdtool` and the command."]
    parts += [_table(_options(root)[""])]
    for panel, about in SHARED_PANELS.items():
        parts += [f"## {panel} options", about, _table(shared[panel])]
    for command in commands:
        parts += _section(command, shared)
    yield ROOT / "docs" / "cli.md", "\n\n".join(parts) + "\n"


def metrics() -> Iterator[tuple[Path, str]]:
    """Yield docs/metrics.md: every metric, by the services that have it."""
    from mdtool.services.families import COUNTER, FAMILIES

    groups: dict[tuple[str, ...], list[str]] = {}
    for name, family in FAMILIES.items():
        scraped = f"{name}_total" if family.kind == COUNTER else name
        labels = f"{{{','.join(family.labels)}}}" if family.labels else ""
        row = f"| `{scraped}{labels}` | {family.kind} | {_cell(family.text)} |"
        groups.setdefault(family.services, []).append(row)
    parts = [METRICS]
    for services, rows in sorted(groups.items(), key=lambda group: -len(group[0])):
        parts += [f"## {', '.join(services)}"]
        parts += ["\n".join(["| metric | type | meaning |", "|---|---|---|", *rows])]
    yield ROOT / "docs" / "metrics.md", "\n\n".join(parts) + "\n"


def log_events() -> Iterator[tuple[Path, str]]:
    """Yield docs/log-events.md: the events that services log, by module."""
    from log_events import events

    rows = [
        f"| `{event.name}` | {event.level} | `{event.logger}` | {_cell(event.message)} |"
        for event in sorted(events(ROOT / "mdtool"))
    ]
    table = ["| event | level | logger | message |", "|---|---|---|---|", *rows]
    yield ROOT / "docs" / "log-events.md", "\n".join([LOG_EVENTS, "", *table]) + "\n"


def dashboards() -> Iterator[tuple[Path, str]]:
    """Yield the dashboard of Grafana."""
    from dashboards import dashboard

    yield ROOT / "deploy" / "grafana" / "mdtool.json", dashboard()


def _below(parent: Any) -> Iterator[Any]:
    """Yield the context of every command below a group, each followed by those below it."""
    from typer import Context

    group = parent.command
    for name in group.list_commands(parent):
        path = f"{parent.info_name} {name}"
        context = Context(group.get_command(parent, name), info_name=path)
        yield context
        if hasattr(context.command, "list_commands"):
            yield from _below(context)


def _contents(commands: list[Any]) -> str:
    """Return a table of all commands, each with the first sentence of its help."""
    rows = {}
    for context in commands:
        path = context.info_name
        title = f"[`{path.removeprefix('mdtool ')}`](#{path.replace(' ', '-')})"
        rows[title] = _unescaped(context.command.help.partition("\n\n")[0])
    return "\n".join(
        ["| command | does |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows.items())]
    )


def _section(context: Any, shared: dict[str, dict[str, str]]) -> Iterator[str]:
    """Yield the paragraphs about one command."""
    command = context.command
    yield f"## {context.info_name}"
    yield "    " + " ".join([context.info_name, *command.collect_usage_pieces(context)])
    paragraphs = _unescaped(command.help).split("\n\n")
    yield from (text for text in paragraphs if not text.startswith(EXAMPLE))
    examples = [text.removeprefix(EXAMPLE) for text in paragraphs if text.startswith(EXAMPLE)]
    yield "\n".join(["```sh", *examples, "```"])
    references = []
    for panel, options in _options(context).items():
        if panel in shared:
            missing = [f"`{name.split()[0]}`" for name in shared[panel] if name not in options]
            without = f" without {', '.join(missing)}" if missing else ""
            references.append(f"[{panel} options](#{panel.lower()}-options){without}")
            continue
        if panel:
            yield f"**{panel}**"
        yield _table(options)
    if references:
        yield f"Also: {'; '.join(references)}."


def _options(context: Any) -> dict[str, dict[str, str]]:
    """Return a command's options by panel: each one's help by its flags and value.

    Panels stand in the order of `--help`, settings last.
    """
    panels: dict[str, dict[str, str]] = {"": {}}
    for parameter in context.command.params:
        record = parameter.get_help_record(context)
        if record is not None and parameter.name != "help":
            panel = getattr(parameter, "rich_help_panel", None) or ""
            name, text = record
            if parameter.param_type_name == "argument":
                name = name.partition(" <")[0]
            panels.setdefault(panel, {})[name] = _plain(text)
    settings = {panel: panels.pop(panel, {}) for panel in SETTINGS}
    return {panel: options for panel, options in (panels | settings).items() if options}


def _unescaped(text: str) -> str:
    """Return a help text without rich's markup."""
    return text.replace("\\[", "[")


def _plain(text: str) -> str:
    """Return a help text without rich's markup, its default and range as the settings have them."""
    text = _unescaped(text).replace("  [", " [")
    text = re.sub(r"\[default: \((.*)\)", r"[default: \1", text)
    return re.sub(r"x>=(\S+)\]", r"at least \1]", text)


def _shared(panel: str, commands: list[Any]) -> dict[str, str]:
    """Return the options of a panel that several commands have.

    They are to be the same everywhere; a command may lack some.
    """
    shared: dict[str, str] = {}
    for context in commands:
        for name, text in _options(context).get(panel, {}).items():
            if shared.setdefault(name, text) != text:
                sys.exit(f"{context.info_name}: {name} differs from that of other commands")
    return shared


def _table(options: dict[str, str]) -> str:
    rows = (f"| `{_cell(name)}` | {_cell(text)} |" for name, text in options.items())
    return "\n".join(["| option | meaning |", "|---|---|", *rows])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write every generated file, or compare."""
    stale = []
    for path, text in [
        *protobuf(),
        *completions(),
        *reference(),
        *metrics(),
        *log_events(),
        *dashboards(),
    ]:
        if not path.exists() or path.read_text() != text:
            stale.append(str(path.relative_to(ROOT)))
            if "--check" not in sys.argv:
                path.write_text(text)
    if stale and "--check" in sys.argv:
        sys.exit(f"out of date, run python .ci/generate.py: {', '.join(stale)}")
    print(f"{len(stale)} generated files written" if stale else "generated files are up to date")


if __name__ == "__main__":
    main()
