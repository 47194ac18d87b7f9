"""The keys of a live gateway's clients, and what each may read.

They are stored in plain text: to check the answer to a challenge, the key itself is required.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mdtool.adapters.audit import AuditLog
from mdtool.core import reloading
from mdtool.core.errors import InputError, StartupError
from mdtool.core.permissions import ANONYMOUS, Principal, Roles
from mdtool.core.private_files import read_private
from mdtool.wire.live import Authentication

log = logging.getLogger(__name__)


class Key(NamedTuple):
    """A key, and whose it is."""

    owner: Principal
    text: str


_ANY: Key = Key(ANONYMOUS, "")


class Keys:
    """The keys of a file, as they were when it was last read.

    Each line is `NAME KEY`, or `NAME KEY ROLE,ROLE`; a key without roles may read everything.
    Comments begin with `#`.

    Parameters
    ----------
    path : str or None
        None accepts any key.
    roles : Roles
    audit : AuditLog, optional

    Raises
    ------
    StartupError
        When the file cannot be read, others than its owner may read it, or a line is not valid.
    """

    def __init__(self, path: str | None, roles: Roles, audit: AuditLog | None = None) -> None:
        self._path = path
        self._audit = audit
        self._roles = roles
        self._keys: Sequence[Key] = ()
        if path is None:
            return
        try:
            self._stamp = reloading.FileStamp(Path(path))
            self._keys = _read(path, roles)
        except InputError as error:
            raise StartupError(str(error)) from error
        reloading.add(self)

    def find(self, cram: str, request: Authentication) -> Key | None:
        """Return the key that a client has, None where that is none of these."""
        if self._path is None:
            return _ANY
        return next((key for key in self._keys if request.proves(cram, key.text)), None)

    def note(self, key: Key | None, address: str, what: str, refusal: str | None = None) -> None:
        """As `AuditLog.note`, of a client that has a key or none; without such a log not at all."""
        if self._audit is not None:
            owner = ANONYMOUS if key is None else key.owner
            self._audit.note(owner.name, address, what, refusal)

    def is_valid(self, key: Key) -> bool:
        """Return whether a key is still in the file, with the same roles."""
        return self._path is None or key in self._keys

    def reload(self) -> bool:
        """Read the file again if it has changed; return whether the keys may have.

        A file that cannot be read, or is not valid, changes nothing: its error is logged once.
        """
        if self._path is None:
            return False
        try:
            if not self._stamp.has_changed():
                return False
            self._keys = _read(self._path, self._roles)
        except InputError as error:
            log.warning("%s; the keys read before remain valid", error)
            return False
        log.info("%s: read %d keys", self._path, len(self._keys))
        return True

    def read_again(self) -> None:
        """As `Reloadable.read_again`: the next `reload` does."""
        self._stamp.forget()


def _read(path: str, roles: Roles) -> Sequence[Key]:
    keys = []
    for number, line in enumerate(read_private(path, "ascii").splitlines(), 1):
        words = line.partition("#")[0].split()
        match words:
            case []:
                continue
            case [name, text]:
                keys.append(Key(Principal(name), text))
            case [name, text, listed]:
                names = listed.split(",")
                unknown = [each for each in names if each not in roles]
                if unknown:
                    raise InputError(
                        f"{path}: line {number}: role {unknown[0]!r} does not exist; "
                        f"add [roles.{unknown[0]}] to the settings"
                    )
                keys.append(Key(roles.principal(name, names), text))
            case _:
                raise InputError(f"{path}: line {number} is not a name, a key and roles")
    return keys
