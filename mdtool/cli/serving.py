"""Commands that are a filter or, with `--serve`, a service: which options go with which."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import typer

from mdtool.cli.given_options import given_options
from mdtool.core.errors import UsageError


def check_serving(
    context: typer.Context, settings: type, is_serving: bool, alongside: Collection[str] = ()
) -> None:
    """Refuse options of the service where none runs, and those of the filter where one does.

    Parameters
    ----------
    context : typer.Context
        Of the command.
    settings : type
        The service's settings, whose fields are its options.
    is_serving : bool
        Whether `--serve` was given.
    alongside : collection of str
        The other parameters that the service takes too.

    Raises
    ------
    UsageError
    """
    of_service = {field.name for field in dataclasses.fields(settings)}
    for name, parameter in given_options(context):
        if name == "serve":
            continue
        if not is_serving and name in of_service:
            raise UsageError(f"{parameter.opts[0]} is for --serve")
        if is_serving and name not in of_service and name not in alongside:
            is_option = parameter.param_type_name == "option"
            what = parameter.opts[0] if is_option else getattr(parameter, "metavar", name)
            raise UsageError(f"{what} does not go with --serve")
