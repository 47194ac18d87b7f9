"""Plain values of the command line are what typer's own conversion makes of them."""

from typing import Annotated

import pytest
import typer

from mdtool.cli import values

KINDS = [
    str,
    int,
    float,
    list[str],
    Annotated[int, typer.Option(min=1, max=10)],
    Annotated[float, typer.Option(min=0.5)],
    Annotated[str, typer.Option(parser=str.upper)],
    Annotated[int, typer.Option(min=3, clamp=True)],
]
WORDS = ["", "aapl", "0", "1", "7", "007", "11", "-1", "1.5", "1_0", " 4", "\u0663", "9" * 25]


def outcome(coerce, value, parameter):
    """Return the type and the value, or the error."""
    try:
        made = coerce(value, param=parameter, ctx=None)
    except typer.BadParameter as error:
        return error.message
    return type(made), made


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_converted_as_typer_does(kind):
    app = typer.Typer()
    app.command()(lambda value=None: value)
    app.registered_commands[0].callback.__annotations__["value"] = kind
    (parameter,) = (p for p in typer.main.get_command(app).params if p.name == "value")
    given = [None, *([word, "x"] if kind == list[str] else word for word in WORDS)]
    for value in given:
        ours = outcome(values._PlainValues.coerce, value, parameter)
        assert ours == outcome(values._OF_TYPER(parameter).coerce, value, parameter), value
