"""Command-line options made from a settings dataclass, so that each is written once."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer

from mdtool.core.config import field_types, load


def with_settings(cls: type, section: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command an option for every setting of `cls`, in place of its `config` parameter.

    The command is then called with `config`, an instance of `cls` loaded from flags, environment,
    file and defaults.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        hints = typing.get_type_hints(command, include_extras=True)
        options = _options(cls)

        @functools.wraps(command)
        def run(**arguments: Any) -> Any:
            flags = {name: arguments.pop(name) for name in options}
            return command(config=load(cls, section, flags), **arguments)

        own = [
            parameter.replace(annotation=hints.get(name, parameter.annotation))
            for name, parameter in inspect.signature(command).parameters.items()
            if name != "config"
        ]
        parameters = [*own, *options.values()]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _options(cls: type) -> dict[str, inspect.Parameter]:
    types = field_types(cls)
    options = {}
    for field in dataclasses.fields(cls):
        name, kind = field.name, types[field.name]
        flag = "--" + name.replace("_", "-")
        option = typer.Option(
            f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
            help=field.metadata["help"],
            show_default=str(field.default) if field.default not in (None, "") else False,
            min=field.metadata["low"],
            max=field.metadata["high"],
            rich_help_panel="Settings",
        )
        options[name] = inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[kind | None, option],
        )
    return options
