"""The events that services log, read from the code, from which .ci/generate.py writes a page."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from mdtool.core.logs import event_of

_LEVELS: Final = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
    "log": "varies",
}
_LOGGERS: Final = ("log", "_logger", "self._log")
_FLOORS: Final = ("core", "adapters", "services")


class Event(NamedTuple):
    """A line that may be logged."""

    name: str
    level: str
    logger: str
    message: str


def events(root: Path) -> Iterator[Event]:
    """Yield the events of the modules below the package's folder, each once."""
    for floor in _FLOORS:
        for path in sorted((root / floor).rglob("*.py")):
            logger = ".".join(path.relative_to(root.parent).with_suffix("").parts)
            logger = logger.removesuffix(".__init__")
            found = (
                Event(event_of(logger, message), level, logger, message)
                for level, message in _messages(ast.parse(path.read_text()))
            )
            yield from dict.fromkeys(found)


def _messages(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the level and message of each call of a logger, as the code has them."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        level, logger = _LEVELS.get(node.func.attr), ast.unparse(node.func.value)
        if level is None or not (logger in _LOGGERS or logger.startswith("ClientLog(")):
            continue
        message = node.args[1] if node.func.attr == "log" else node.args[0]
        choices = [message.body, message.orelse] if isinstance(message, ast.IfExp) else [message]
        for choice in choices:
            text = choice.value if isinstance(choice, ast.Constant) else "%s"
            yield level, str(text)
