"""Command-line options made from a settings dataclass, so that each is written once."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from mdtool.cli.option_bundle import Command, bundled
from mdtool.core.config import field_types, load, range_of


def with_settings(cls: type, section: str) -> Callable[[Command], Command]:
    """Give a command an option for every setting of `cls`, in place of its `config` parameter.

    The command is then called with `config`, an instance of `cls` loaded from flags, environment,
    file and defaults.
    """
    types = field_types(cls)
    switches = [name for name, kind in types.items() if kind is bool]
    options = []
    for field in dataclasses.fields(cls):
        kind = types[field.name]
        options += _switch(field) if kind is bool else [_option(field, kind)]
        if former := field.metadata["formerly"]:
            hidden = typer.Option(_flag(former), hidden=True, rich_help_panel="Settings")
            options.append(_parameter(former, kind, hidden))

    def make(**flags: Any) -> Any:
        for name in switches:
            if flags.pop(_off(name)):
                flags[name] = False
        return load(cls, section, flags)

    return bundled(options, "config", make)


def _option(field: dataclasses.Field[Any], kind: type) -> inspect.Parameter:
    # None tells that the option was not given, so the real default stands in its help. The range
    # does too: beside the option's name it would leave no room for that.
    default = "" if field.default in (None, "") else f"default: {field.default}"
    told = "; ".join(filter(None, (range_of(field), default)))
    option = typer.Option(
        _flag(field.name),
        help=field.metadata["help"] + (rf" \[{told}]" if told else ""),
        show_default=False,
        rich_help_panel="Settings",
    )
    return _parameter(field.name, kind, option)


def _switch(field: dataclasses.Field[Any]) -> list[inspect.Parameter]:
    """Return flags that turn a setting on and off; the one that says the default is not shown."""
    text = field.metadata["help"]
    off = f"Do not {text[0].lower()}{text[1:]}"
    names = {field.name: (text, not field.default), _off(field.name): (off, bool(field.default))}
    return [
        _parameter(
            name,
            bool,
            typer.Option(
                _flag(name),
                help=text,
                hidden=not is_shown,
                show_default=False,
                rich_help_panel="Settings",
            ),
        )
        for name, (text, is_shown) in names.items()
    ]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _off(name: str) -> str:
    return f"no_{name}"


def _parameter(name: str, kind: type, option: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )
