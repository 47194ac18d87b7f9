"""Options that several commands share, declared once and handed over as one parameter."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any

Command = Callable[..., Any]


def option_bundle(cls: type, parameter: str) -> Callable[[Command], Command]:
    """Return a decorator that gives a command the options of `cls` in place of one parameter.

    Parameters
    ----------
    cls : type
        A dataclass each of whose fields has a default and is `Annotated` with a `typer.Option`.
    parameter : str
        The command's parameter that then gets an instance of `cls`.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(cls)
    ]
    return bundled(options, parameter, cls)


def bundled(
    options: Sequence[inspect.Parameter], parameter: str, make: Callable[..., Any]
) -> Callable[[Command], Command]:
    """Return a decorator that puts options in the place of a command's parameter.

    Parameters
    ----------
    options : sequence of inspect.Parameter
        Keyword-only, as typer reads them.
    parameter : str
        The command's parameter that then gets what `make` returns.
    make : callable
        Called with the options by name.
    """

    def decorate(command: Command) -> Command:
        own_hints = typing.get_type_hints(command, include_extras=True)

        @functools.wraps(command)
        def run(**arguments: Any) -> Any:
            made = make(**{option.name: arguments.pop(option.name) for option in options})
            return command(**{parameter: made}, **arguments)

        own = [
            p.replace(annotation=own_hints.get(p.name, p.annotation))
            for p in inspect.signature(command).parameters.values()
            if p.name != parameter
        ]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*own, *options]]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate
