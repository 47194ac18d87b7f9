"""What would be said on stderr, kept while a full-screen view has the terminal."""

from __future__ import annotations

import io
import logging
import sys
from collections import deque
from typing import Final, Self, TextIO, cast

MESSAGES_KEPT: Final = 100


class HeldMessages(io.TextIOBase):
    """Stands for stderr in its `with` block, and says at its end the last of what was written.

    Attributes
    ----------
    last : str
        The last line, for the view to show.
    """

    def __init__(self) -> None:
        self.last = ""
        self._lines: deque[str] = deque(maxlen=MESSAGES_KEPT)
        self._stderr: TextIO = sys.stderr
        self._handlers: list[logging.StreamHandler[TextIO]] = []

    def write(self, text: str) -> int:
        """Keep a text."""
        for line in text.splitlines():
            if line.strip():
                self._lines.append(line)
                self.last = line
        return len(text)

    def __enter__(self) -> Self:
        self._stderr = sys.stderr
        self._handlers = [
            handler
            for handler in logging.getLogger().handlers
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr
        ]
        for handler in self._handlers:
            handler.setStream(cast("TextIO", self))
        sys.stderr = self
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.stderr = self._stderr
        for handler in self._handlers:
            handler.setStream(self._stderr)
        for line in self._lines:
            print(line, file=sys.stderr)
