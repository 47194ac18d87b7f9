"""How commands are declared: option bundles, settings, two modes, INPUT beside subcommands."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from mdtool.cli.completion import Offer, one_of, some_of
from mdtool.core.config import did_you_mean, field_types, load, range_of
from mdtool.core.errors import UsageError

Command = Callable[..., Any]

SETTINGS: Final = "Settings"
ADVANCED: Final = "Advanced settings"
"""The headings of settings; `--help` leaves the advanced ones to `--help-all`."""


def option_bundle(
    cls: type, parameter: str, panel: str | None = None
) -> Callable[[Command], Command]:
    """Return a decorator that replaces one parameter of a command by the options of `cls`.

    Parameters
    ----------
    cls : type
        A dataclass each of whose fields has a default and is `Annotated` with a `typer.Option`.
    parameter : str
        The command's parameter; its value is an instance of `cls`.
    panel : str, optional
        The heading of the options in the help text.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    for hint in hints.values():
        for option in getattr(hint, "__metadata__", ()):
            option.rich_help_panel = panel
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(cls)
    ]
    return _bundled(options, parameter, cls)


def with_settings(
    cls: type, section: str, without: Collection[str] = ()
) -> Callable[[Command], Command]:
    """Give a command an option for every setting of `cls`, in place of its `config` parameter.

    The command is then called with `config`, an instance of `cls` loaded from flags, environment,
    file and defaults. Settings named by `without` are no options of this command.
    """
    types = field_types(cls)
    switches = [name for name, kind in types.items() if kind is bool and name not in without]
    options = []
    fields = [field for field in dataclasses.fields(cls) if field.name not in without]
    for field in sorted(fields, key=_panel, reverse=True):
        kind = types[field.name]
        options += _switch(field) if kind is bool else [_option(field, kind)]
        if former := field.metadata["formerly"]:
            text = f"The former name of {_flag(field.name)}."
            options.append(
                _parameter(former, kind, typer.Option(_flag(former), hidden=True, help=text))
            )

    def make(**flags: Any) -> Any:
        for name in switches:
            if flags.pop(_off(name)):
                flags[name] = False
        return load(cls, section, flags)

    return _bundled(options, "config", make)


def given_options(context: typer.Context) -> Iterator[tuple[str, str]]:
    """Yield the name of each parameter that the command line gives, and what the user calls it."""
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            is_option = parameter.param_type_name == "option"
            yield name, parameter.opts[0] if is_option else parameter.metavar or name


def check_mode(
    context: typer.Context,
    settings: type,
    is_service: bool,
    *,
    shared: Collection[str] = (),
    switch: str | None = None,
) -> None:
    """Reject options of the service where a command is a filter, and the other way round.

    Parameters
    ----------
    context : typer.Context
        Of the command.
    settings : type
        The service's settings, whose fields are its options.
    is_service : bool
        Whether the command runs the service.
    shared : collection of str
        Parameters of both.
    switch : str, optional
        The option that chooses the service; without one, a command without INPUT is the service.

    Raises
    ------
    UsageError
    """
    fields = dataclasses.fields(settings)
    of_service = {name for field in fields for name in (field.name, field.metadata["formerly"])}
    for name, shown in given_options(context):
        if name in shared or shown == switch or (name in of_service) == is_service:
            continue
        if not is_service:
            what_to_do = f"give {switch}" if switch else "leave out INPUT"
            raise UsageError(f"{shown}: is for the service; {what_to_do}")
        if switch:
            raise UsageError(f"{shown}: does not go with {switch}; leave one out")
        raise UsageError(f"{shown}: needs INPUT; give a file, or - for standard input")


def input_app() -> typer.Typer:
    """Return the app of a command that takes INPUT itself unless it is given a subcommand."""
    return typer.Typer(
        cls=_InputGroup,
        invoke_without_command=True,
        no_args_is_help=True,
        subcommand_metavar="| COMMAND [ARGS]...",
        add_completion=False,
    )


class CommandGroup(TyperGroup):
    """Names the nearest subcommand where one is mistyped."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the subcommand that the first word names."""
        name, known = args[0], self.list_commands(ctx)
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            of = "" if ctx.parent is None else f"{ctx.info_name} "
            raise UsageError(f"{of}{name}: no such command{did_you_mean(name, known)}")
        return super().resolve_command(ctx, args)


class _InputGroup(TyperGroup):
    """Takes INPUT, unless the first word names a subcommand."""

    allow_interspersed_args = True

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Return the subcommand's context, or that of the command which takes INPUT."""
        if args and args[0] in self.commands:
            name = f"{info_name} {args[0]}"
            return self.commands[args[0]].make_context(name, args[1:], parent, **extra)
        if args and args[0].isidentifier() and not Path(args[0]).exists():
            close = difflib.get_close_matches(args[0], list(self.commands), n=1)
            if close and not extra.get("resilient_parsing"):
                raise UsageError(f"{args[0]}: no such file; did you mean `{info_name} {close[0]}`?")
        return super().make_context(info_name, args, parent, **extra)


def _bundled(
    options: Sequence[inspect.Parameter], parameter: str, make: Callable[..., Any]
) -> Callable[[Command], Command]:
    """Return a decorator that replaces a parameter by options, of which `make` makes its value."""

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


def _option(field: dataclasses.Field[Any], kind: type) -> inspect.Parameter:
    # The default is None, which means that the option was not given; the real one is in the help
    # text, and so is the range, which would take the room of the option's name.
    default = "" if field.default in (None, "") else f"default: {field.default}"
    limits = "; ".join(filter(None, (range_of(field), default)))
    option = typer.Option(
        _flag(field.name),
        help=field.metadata["help"] + (rf" \[{limits}]" if limits else ""),
        show_default=False,
        rich_help_panel=_panel(field),
        autocompletion=_completion(field.metadata),
    )
    return _parameter(field.name, kind, option)


def _switch(field: dataclasses.Field[Any]) -> list[inspect.Parameter]:
    """Return the flags that turn a setting on and off; that of the default is hidden."""
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
                rich_help_panel=_panel(field),
            ),
        )
        for name, (text, is_shown) in names.items()
    ]


def _panel(field: dataclasses.Field[Any]) -> str:
    return SETTINGS if field.metadata["is_common"] else ADVANCED


def _completion(metadata: Mapping[str, Any]) -> Offer | None:
    if not metadata["offered"]:
        return None
    return (one_of if metadata["choices"] else some_of)(metadata["offered"])


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
