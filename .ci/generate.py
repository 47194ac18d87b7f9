"""Write the generated files again: wire/_pb, completions, the README's command reference.

With --check nothing is written; a file that would come out otherwise ends it with status 1.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
PACKAGE = ROOT / "mdtool" / "wire" / "_pb"
REFERENCE = re.compile(r"(<!-- reference -->\n).*(<!-- end of reference -->\n)", re.DOTALL)
WIDTH = 96


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
    """Yield the README with every command's `--help` in its reference."""
    sections = []
    for name in _commands():
        title = f"<details><summary><code>mdtool {name}</code></summary>"
        sections.append(f"{title}\n\n```text\n{_help_of(name)}\n```\n\n</details>\n")
    readme = ROOT / "README.md"
    body = "\n" + "\n".join(sections) + "\n"
    yield readme, REFERENCE.sub(lambda match: match[1] + body + match[2], readme.read_text())


def _commands() -> Iterator[str]:
    """Yield every command, each followed by the commands below it."""
    from typer.main import get_command

    from mdtool.cli.app import COMMANDS

    for name, module in COMMANDS.items():
        yield name
        command = get_command(importlib.import_module(module).app)
        yield from (f"{name} {below}" for below in getattr(command, "commands", {}))


def _help_of(name: str) -> str:
    environment = os.environ | {
        "COLUMNS": str(WIDTH),
        "TERMINAL_WIDTH": str(WIDTH),
        "NO_COLOR": "1",
    }
    result = subprocess.run(
        [sys.executable, "-m", "mdtool", *name.split(), "--help"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.rstrip() for line in result.stdout.strip("\n").splitlines()]
    return "\n".join(lines).strip()


def main() -> None:
    """Write every generated file, or compare."""
    stale = []
    for path, text in [*protobuf(), *completions(), *reference()]:
        if not path.exists() or path.read_text() != text:
            stale.append(str(path.relative_to(ROOT)))
            if "--check" not in sys.argv:
                path.write_text(text)
    if stale and "--check" in sys.argv:
        sys.exit(f"out of date, run python .ci/generate.py: {', '.join(stale)}")
    print(f"{len(stale)} generated files written" if stale else "generated files are up to date")


if __name__ == "__main__":
    main()
