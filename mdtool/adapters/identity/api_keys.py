"""API keys: a file with the digest of each, which is read again when it changes.

A key is `mdt_ID_SECRET`. Its secret has 256 random bits, so that a plain SHA-256 of it cannot be
searched; the file has no secrets, and one line of JSON a key.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import logging
import math
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from mdtool.adapters.identity.errors import TokenError
from mdtool.core import reloading
from mdtool.core.errors import InputError, UsageError
from mdtool.core.permissions import MAX_NAME_CHARS

log = logging.getLogger(__name__)

PREFIX: Final = "mdt_"
_ID_BYTES: Final = 8
_SECRET_BYTES: Final = 32
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_NO_DIGEST: Final = "0" * 64
"""Compared where a key does not exist, so that this takes as long."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What the file has of a key.

    Attributes
    ----------
    id : str
        Its public part.
    digest : str
        SHA-256 of its secret, hexadecimal.
    name : str
        Whose it is: several keys may name one principal.
    roles : tuple of str
    created_s : int
        In s since the epoch.
    expires_s : int or None
        None for never.
    """

    id: str
    digest: str
    name: str
    roles: tuple[str, ...]
    created_s: int
    expires_s: int | None = None

    @property
    def ends_s(self) -> float:
        """When it expires, infinity for never."""
        return math.inf if self.expires_s is None else self.expires_s

    @classmethod
    def make(cls, name: str, roles: Sequence[str], valid_s: int | None) -> tuple[ApiKey, str]:
        """Return a new key, and its text, which nothing else has.

        Raises
        ------
        UsageError
            When the name is not valid.
        """
        if not (1 <= len(name) <= MAX_NAME_CHARS and name.isprintable()):
            raise UsageError(f"{name!r:.80}: expects a name of printable characters")
        key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
        now_s = int(time.time())
        expires_s = None if valid_s is None else now_s + valid_s
        key = cls(key_id, _digest(secret), name, tuple(roles), now_s, expires_s)
        return key, f"{PREFIX}{key_id}_{secret}"

    @classmethod
    def parse(cls, line: str) -> ApiKey:
        """Return the key of a line; raise ValueError where it is not valid."""
        try:
            key = cls(**json.loads(line))
            is_right = all(isinstance(text, str) for text in (key.id, key.digest, key.name))
            numbers = (key.created_s, key.expires_s)
            is_right &= all(isinstance(each, int | None) for each in numbers)
            is_right &= all(isinstance(role, str) for role in key.roles)
        except TypeError as error:
            raise ValueError("not an API key") from error
        if not is_right or _DIGEST.fullmatch(key.digest) is None:
            raise ValueError("not an API key")
        return replace(key, roles=tuple(key.roles))


class ApiKeys:
    """The keys of a file, as they were when it was last read.

    Parameters
    ----------
    path : str

    Raises
    ------
    InputError
        When the file cannot be read, or a line of it is not valid.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._stamp = reloading.FileStamp(self.path)
        self._keys = _read(self.path)
        reloading.add(self)

    def find(self, text: str) -> ApiKey:
        """Return the key of a text.

        Raises
        ------
        TokenError
            When there is no such key, or it has expired.
        """
        key_id, _, secret = text.removeprefix(PREFIX).partition("_")
        key = self._keys.get(key_id)
        digest = _NO_DIGEST if key is None else key.digest
        if not hmac.compare_digest(digest, _digest(secret)) or key is None:
            raise TokenError("token: no such API key, or it is revoked")
        if key.ends_s <= time.time():
            raise TokenError("token: the API key has expired")
        return key

    def get(self, key_id: str) -> ApiKey | None:
        """Return the key of an id, None where there is none any more."""
        return self._keys.get(key_id)

    def __iter__(self) -> Iterator[ApiKey]:
        return iter(self._keys.values())

    def reload(self) -> bool:
        """Read the file again if it has changed; return whether the keys may have.

        A file that cannot be read, or is not valid, changes nothing: its error is logged once.
        """
        try:
            if not self._stamp.has_changed():
                return False
            self._keys = _read(self.path)
        except InputError as error:
            log.warning("%s; the keys read before remain valid", error)
            return False
        log.info("%s: read %d API keys", self.path, len(self._keys))
        return True

    def read_again(self) -> None:
        """As `Reloadable.read_again`: the next `reload` does, in a thread of its own."""
        self._stamp.forget()


def add(path: Path, key: ApiKey) -> None:
    """Append a key to a file, which is created with mode 0600.

    Raises
    ------
    InputError
        When it cannot be written.
    """
    with _locked(path) as file:
        size = os.lseek(file, 0, os.SEEK_END)
        # A file that was edited, or whose disk was full, may not end with a whole line.
        begins = not size or os.pread(file, 1, size - 1) == b"\n"
        os.write(file, (("" if begins else "\n") + json.dumps(asdict(key)) + "\n").encode())
        os.fsync(file)


def revoke(path: Path, chosen: str) -> list[ApiKey]:
    """Remove the key of an id, or all keys of a name, from a file; return them.

    Raises
    ------
    InputError
        When it cannot be read or written.
    """
    with _locked(path):
        keys = list(_read(path).values())
        revoked = [key for key in keys if chosen in {key.id, key.name}]
        if revoked:
            lines = "".join(json.dumps(asdict(key)) + "\n" for key in keys if key not in revoked)
            beside = path.with_name(f"{path.name}.new")
            with open(beside, "w", encoding="utf-8", opener=_private) as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
    return revoked


def _read(path: Path) -> dict[str, ApiKey]:
    keys = {}
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        try:
            if line.strip():
                key = ApiKey.parse(line)
                keys[key.id] = key
        except ValueError:
            raise InputError(
                f"{path}: line {number} is not an API key; make keys by mdtool token new"
            ) from None
    return keys


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Open a file, for no other command to write it within the block."""
    try:
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                # Another command may have replaced the file while this one waited.
                if path.exists() and path.stat().st_ino == os.fstat(file).st_ino:
                    yield file
                    return
            finally:
                os.close(file)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
