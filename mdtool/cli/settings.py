"""Command-line options made from a settings dataclass, so that each is written once."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from mdtool.cli.option_bundle import Command, bundled
from mdtool.core.config import field_types, load


def with_settings(cls: type, section: str) -> Callable[[Command], Command]:
    """Give a command an option for every setting of `cls`, in place of its `config` parameter.

    The command is then called with `config`, an instance of `cls` loaded from flags, environment,
    file and defaults.
    """
    types = field_types(cls)
    options = [_option(field, types[field.name]) for field in dataclasses.fields(cls)]

    def make(**flags: Any) -> Any:
        return load(cls, section, flags)

    return bundled(options, "config", make)


def _option(field: dataclasses.Field[Any], kind: type) -> inspect.Parameter:
    flag = "--" + field.name.replace("_", "-")
    # None tells that the option was not given, so the real default stands in its help.
    default = "" if field.default in (None, "") else rf" \[default: {field.default}]"
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
        help=field.metadata["help"] + default,
        show_default=False,
        min=field.metadata["low"],
        max=field.metadata["high"],
        rich_help_panel="Settings",
    )
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )
