"""Which of a command's parameters its command line gives, for those that do not go together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer


def given_options(context: typer.Context) -> Iterator[tuple[str, Any]]:
    """Yield the name and the parameter of each that is given, arguments too, as declared."""
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            yield name, parameter
