"""JSON messages whose numbers stay text: decimals are exact, and never floats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mdtool.core.errors import UsageError

_DECODER: Final = json.JSONDecoder(parse_float=str)


def decoded(text: str) -> Any:
    """Return a message; numbers with a point or an exponent are texts.

    Raises
    ------
    ValueError
        When it is not JSON.
    """
    try:
        # What `decode` does, without looking for white space around the value.
        value, end = _DECODER.raw_decode(text)
        return value if end == len(text) else _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def request(message: Mapping[str, object]) -> str:
    """Return a message to send."""
    return json.dumps(message, separators=(",", ":"))


def chosen(schemas: str, offered: Sequence[str]) -> list[str]:
    """Return the schemas that settings name, all that are offered if they name none.

    Raises
    ------
    UsageError
        When one is not offered.
    """
    names = [name for text in schemas.split(",") if (name := text.strip())]
    for name in names:
        if name not in offered:
            raise UsageError(f"--schema {name}: the source has {', '.join(offered)}")
    return names or list(offered)
