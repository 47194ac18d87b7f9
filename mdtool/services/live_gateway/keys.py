"""The keys of a live gateway's clients, and what each may read.

They are stored in plain text: to check the answer to a challenge, the key itself is required.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mdtool.core.errors import InputError, StartupError
from mdtool.core.permissions import ANONYMOUS, Principal, Roles
from mdtool.core.private_files import read_private
from mdtool.wire.live import Authentication


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
    def read(cls, path: str, roles: Roles) -> Keys:
        """Return the keys in a file: `NAME KEY` on each line, and comments that begin with `#`.

        After the key, `ROLE,ROLE` gives it roles; a key without may read everything.

        Raises
        ------
        StartupError
            When it cannot be read, others than its owner may read it, or a line is not valid.
        """
        try:
            text = read_private(path, "ascii")
        except InputError as error:
            raise StartupError(str(error)) from error
        keys = []
        for number, line in enumerate(text.splitlines(), 1):
            words = line.partition("#")[0].split()
            match words:
                case []:
                    continue
                case [name, key]:
                    keys.append((Principal(name), key))
                case [name, key, listed]:
                    names = listed.split(",")
                    unknown = [each for each in names if each not in roles]
                    if unknown:
                        raise StartupError(
                            f"{path}: line {number}: role {unknown[0]!r} does not exist; "
                            f"add [roles.{unknown[0]}] to the settings"
                        )
                    keys.append((roles.principal(name, names), key))
                case _:
                    raise StartupError(f"{path}: line {number} is not a name, a key and roles")
        return cls(keys)

    def principal(self, cram: str, request: Authentication) -> Principal | None:
        """Return who a client is, None where it has none of the keys."""
        if self.of is None:
            return ANONYMOUS
        return next((owner for owner, key in self.of if request.proves(cram, key)), None)
