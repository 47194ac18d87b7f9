"""How words of the command line become values: text and plain numbers at once, the rest by typer.

Typer converts with pydantic, whose import takes 70 ms of CPU, a quarter of a command on a small
file, and 15 MB.
"""

from __future__ import annotations

from typing import Any, Final

from typer.core import TyperArgument, TyperOption

_OF_TYPER: Final[Any] = TyperOption.get_runtime_param
_PLAIN_DIGITS: Final = 18
"""More digits might not be a 64-bit integer."""


def convert_plainly() -> None:
    """Have the parameters of all commands import pydantic only for values that need it."""
    parameters: tuple[Any, ...] = (TyperArgument, TyperOption)
    for kind in parameters:
        kind.get_runtime_param = lambda _parameter: _PlainValues


class _PlainValues:
    """The conversion of a parameter's value, as typer calls it."""

    @staticmethod
    def coerce(value: Any, param: Any, ctx: Any) -> Any:
        """Return the value as the parameter's annotation has it; typer rejects what cannot be."""
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        kind, limits = param.type_descriptor.annotation, param.type_descriptor.parameter_info
        if limits.parser is None:
            if kind is type(value) and kind in (str, int, float):
                return value
            if kind == list[str] and {*map(type, value)} <= {str}:
                return list(value)
            if kind in (int, float) and _is_plain(value):
                number = kind(value)
                is_low = limits.min is not None and number < limits.min
                is_high = limits.max is not None and number > limits.max
                if not (is_low or is_high):
                    return number
        return _OF_TYPER(param).coerce(value, param=param, ctx=ctx)


def _is_plain(value: object) -> bool:
    """Return whether a word consists of a few digits."""
    is_number = isinstance(value, str) and value.isascii() and value.isdecimal()
    return is_number and len(str(value)) <= _PLAIN_DIGITS
