"""The keys of a live gateway's clients.

They are stored in plain text: to check the answer to a challenge, the key itself is required.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mdtool.core.errors import StartupError
from mdtool.core.permissions import ANONYMOUS, Principal
from mdtool.wire.live import Authentication

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys, each naming a principal.

    Attributes
    ----------
    of : sequence of (Principal, str), or None
        None accepts any key.
    """

    of: Sequence[tuple[Principal, str]] | None = None

    @classmethod
    def read(cls, path: str) -> Keys:
        """Return the keys in a file: `NAME KEY` on each line, and comments that begin with `#`.

        Raises
        ------
        StartupError
            When it cannot be read, others than its owner may read it, or a line is not valid.
        """
        try:
            mode, text = Path(path).stat().st_mode, Path(path).read_text(encoding="ascii")
        except OSError as error:
            raise StartupError(f"{path}: {error.strerror}") from error
        except UnicodeError as error:
            raise StartupError(f"{path}: is not ASCII text") from error
        if mode & _OTHERS:
            raise StartupError(f"{path}: others may read the keys in it; chmod 600 {path}")
        keys = []
        for number, line in enumerate(text.splitlines(), 1):
            words = line.partition("#")[0].split()
            if words and len(words) != 2:
                raise StartupError(f"{path}: line {number} is not a name and a key")
            if words:
                keys.append((Principal(words[0]), words[1]))
        return cls(keys)

    def principal(self, cram: str, request: Authentication) -> Principal | None:
        """Return who a client is, None where it has none of the keys."""
        if self.of is None:
            return ANONYMOUS
        return next((owner for owner, key in self.of if request.proves(cram, key)), None)
