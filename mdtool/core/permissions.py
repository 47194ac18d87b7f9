"""What principals may do: roles over symbols and feeds, and the decisions that follow from them.

Deny wins over every grant. Patterns of `read` and `write` match a symbol as it is written; those
of `deny` also match whatever differs from them only by case and surrounding white space, so that a
mistake shuts out and never lets in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from typing import Any, ClassVar, Final
from weakref import WeakValueDictionary

from mdtool.core.config import section_place
from mdtool.core.errors import ConfigError, MdtoolError

ALL: Final = "*"
"""The pattern of every symbol, and the name of every feed."""
STREAMS: Final = "streams"
RIGHTS: Final = ("faults", "introspection", "metrics", "replay", "signaling", STREAMS)
"""What is not data: faults of a live gateway, GraphQL's schema, metrics and health, replays, rooms
of signaling, and streams of ticks on behalf of the principals that own them."""
MAX_PATTERN_CHARS: Final = 256
MAX_PATTERNS: Final = 1_000
"""Of one list: a token cannot make decisions slow."""
MAX_NAME_CHARS: Final = 256
_CERTIFICATES: Final = "certificates"
"""The key of a role with patterns of names of clients' certificates that have it."""
_MAX_DECISIONS: Final = 1 << 16
"""Decisions that are kept for one permission class and feed."""


class ForbiddenError(MdtoolError):
    """A principal may not do what it requests, whatever exists."""


class GrantError(MdtoolError):
    """Something is not a valid grant: an unknown key, a value of the wrong type or size."""


class Globs:
    """Patterns of symbols: `*` stands for any characters, `?` for one.

    A match takes at most as many steps as the pattern has characters, times the symbol's.

    Parameters
    ----------
    patterns : iterable of str
    """

    __slots__ = ("_patterns", "_texts", "matches_all")

    def __init__(self, patterns: Iterable[str]) -> None:
        found = set(patterns)
        self._texts = frozenset(each for each in found if not {"*", "?"} & set(each))
        self._patterns = tuple(sorted(found - self._texts))
        self.matches_all = any(set(each) == {"*"} for each in self._patterns)

    def __bool__(self) -> bool:
        return bool(self._texts or self._patterns)

    def __contains__(self, symbol: str) -> bool:
        """Return whether a pattern matches a symbol."""
        return (
            self.matches_all
            or symbol in self._texts
            or any(_matches(pattern, symbol) for pattern in self._patterns)
        )


def _matches(pattern: str, text: str) -> bool:
    """Return whether a pattern matches a text; only its last star is ever tried again."""
    at = place = 0
    star = retry = -1
    while place < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, retry = at, place
            at += 1
        elif at < len(pattern) and pattern[at] in {"?", text[place]}:
            at += 1
            place += 1
        elif star >= 0:
            retry += 1
            at, place = star + 1, retry
        else:
            return False
    return not pattern[at:].strip("*")


@dataclass(frozen=True, slots=True)
class Grant:
    """What a role, or a token itself, gives a principal.

    Attributes
    ----------
    read, write, deny : tuple of str
        Patterns of symbols.
    feeds : tuple of str
        The feeds whose symbols may be read, or ALL.
    rights : tuple of str
        Of RIGHTS.
    quota : str
        The class of quotas; empty for the default one.
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    feeds: tuple[str, ...] = (ALL,)
    rights: tuple[str, ...] = ()
    quota: str = ""

    @classmethod
    def parse(cls, given: object) -> Grant:
        """Return the grant of a table of settings, or of a token's claim.

        Raises
        ------
        GrantError
            For an unknown key, or a value that is not valid.
        """
        if not isinstance(given, Mapping):
            raise GrantError("expects a table")
        known = [field.name for field in fields(cls)]
        for key in given:
            if key not in known:
                raise GrantError(f"{key!r:.80}: no such permission; choose from {', '.join(known)}")
        values: dict[str, Any] = {}
        for key, value in given.items():
            values[key] = _name(key, value) if key == "quota" else _names(key, value)
        for right in values.get("rights", ()):
            if right not in RIGHTS:
                raise GrantError(f"rights: {right!r}: no such right; choose from {RIGHTS}")
        return cls(**values)


def _names(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_PATTERNS:
        raise GrantError(f"{key}: expects a list of at most {MAX_PATTERNS:,} texts")
    return tuple(_name(key, each) for each in value)


def _name(key: str, value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_PATTERN_CHARS:
        raise GrantError(f"{key}: expects texts of 1 to {MAX_PATTERN_CHARS} characters")
    return value


class Reader:
    """What a permission class may read of one feed. Decisions are kept, each symbol's once."""

    __slots__ = ("__weakref__", "_decisions", "_deny", "_read")

    def __init__(self, read: Globs, deny: Globs) -> None:
        self._read = read
        self._deny = deny
        self._decisions: dict[str, bool] = {}

    def can_read(self, symbol: str) -> bool:
        """Return whether a symbol exists as far as the class is concerned."""
        decision = self._decisions.get(symbol)
        if decision is None:
            if len(self._decisions) >= _MAX_DECISIONS:
                self._decisions.clear()
            decision = symbol in self._read and _folded(symbol) not in self._deny
            self._decisions[symbol] = decision
        return decision


def _folded(text: str) -> str:
    return text.strip().upper()


class Access:
    """A permission class: what all principals with the same grants may do.

    Equal grants have one Access while a principal has it, so that what is made for one member of
    the class is made for all.

    Parameters
    ----------
    grants : collection of Grant
    """

    __slots__ = ("__weakref__", "_feeds", "_grants", "_readers", "_rights", "_writer")
    _known: ClassVar[WeakValueDictionary[frozenset[Grant], Access]] = WeakValueDictionary()

    def __init__(self, grants: Collection[Grant]) -> None:
        self._grants = frozenset(grants)
        self._rights = frozenset(right for grant in grants for right in grant.rights)
        self._readers: dict[str, Reader | None] = {}
        self._feeds: dict[str, bool] = {}
        write = Globs(pattern for grant in grants for pattern in grant.write)
        deny = self._deny()
        self._writer = None if write.matches_all and not deny else Reader(write, deny)

    @classmethod
    def of(cls, grants: Iterable[Grant]) -> Access:
        """Return the Access of grants, which is the same object for equal ones."""
        key = frozenset(grants)
        found = cls._known.get(key)
        if found is None:
            found = cls._known[key] = cls(key)
        return found

    @property
    def grants(self) -> Collection[Grant]:
        """What the class may do."""
        return self._grants

    def reader(self, feed: str) -> Reader | None:
        """Return what may be read of a feed; None where that is everything."""
        try:
            return self._readers[feed]
        except KeyError:
            read = Globs(pattern for grant in self._granting(feed) for pattern in grant.read)
            deny = self._deny()
            found = None if read.matches_all and not deny else Reader(read, deny)
            self._readers[feed] = found
            return found

    def has_feed(self, feed: str) -> bool:
        """Return whether a grant that lets read anything names a feed."""
        found = self._feeds.get(feed)
        if found is None:
            found = self._feeds[feed] = any(grant.read for grant in self._granting(feed))
        return found

    def can_write(self, symbol: str) -> bool:
        """Return whether ticks of a symbol are accepted."""
        return self._writer is None or self._writer.can_read(symbol)

    @property
    def writes_all(self) -> bool:
        """Whether ticks of every symbol are accepted."""
        return self._writer is None

    def has(self, right: str) -> bool:
        """Return whether the class has a right."""
        return right in self._rights

    def _granting(self, feed: str) -> Iterable[Grant]:
        return (grant for grant in self._grants if ALL in grant.feeds or feed in grant.feeds)

    def _deny(self) -> Globs:
        return Globs(_folded(pattern) for grant in self._grants for pattern in grant.deny)


EVERYTHING: Final = Access.of([Grant(read=(ALL,), write=(ALL,), rights=RIGHTS)])
"""Without authentication, everybody's."""
NOTHING: Final = Access.of([])


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a client is.

    Attributes
    ----------
    name : str
        Unique among principals: `key:NAME` of an API key, `sub:SUBJECT` of a JWT, `cert:NAME` of a
        certificate.
    access : Access
        What it may do.
    quota : str
        The class of its quotas; empty for the default one.
    expires_s : float
        When its token or certificate expires, in s since the epoch.
    key_id : str
        Of the API key that it authenticated by, empty for none.
    """

    name: str
    access: Access = EVERYTHING
    quota: str = ""
    expires_s: float = math.inf
    key_id: str = ""

    def encode(self) -> bytes:
        """Return the principal as JSON, for another process of the service."""
        grants = [astuple(grant) for grant in self.access.grants]
        members = [self.name, grants, self.quota, self.expires_s, self.key_id]
        return json.dumps(members).encode()

    @classmethod
    def decode(cls, data: bytes) -> Principal:
        """Return a principal that another process has encoded."""
        name, grants, *rest = json.loads(data)
        lists: Any = [[*map(tuple, patterns), quota] for *patterns, quota in grants]
        return cls(name, Access.of(Grant(*each) for each in lists), *rest)


ANONYMOUS: Final = Principal("anonymous")
"""A client of a service without authentication."""
CERTIFIED: Final = "cert:"
"""What the name of a principal begins with that its certificate names."""
ANONYMOUS_ROLE: Final = "anonymous"
"""The role of clients without a token, where authentication is optional."""


class Roles:
    """The roles of the settings, `[roles.NAME]`.

    Parameters
    ----------
    tables : mapping of str to mapping
        By name, as the file of settings has them.

    Raises
    ------
    ConfigError
        When one is not valid.
    """

    def __init__(self, tables: Mapping[str, object]) -> None:
        self._grants: dict[str, Grant] = {}
        self._certified: dict[str, Globs] = {}
        for name, table in tables.items():
            try:
                given = dict(table) if isinstance(table, Mapping) else table
                if isinstance(given, dict) and _CERTIFICATES in given:
                    self._certified[name] = Globs(_names(_CERTIFICATES, given.pop(_CERTIFICATES)))
                self._grants[name] = Grant.parse(given)
            except GrantError as error:
                raise ConfigError(f"{section_place('roles', name)} {error}") from error

    def __contains__(self, name: str) -> bool:
        return name in self._grants

    def __iter__(self) -> Any:
        return iter(self._grants)

    def of_certificate(self, name: str, ends_s: float = math.inf) -> Principal | None:
        """Return the principal of a client's certificate, None where no role names it."""
        roles = [role for role, names in self._certified.items() if name in names]
        if not roles:
            return None
        return self.principal(f"{CERTIFIED}{name}", roles, expires_s=ends_s)

    def principal(
        self,
        name: str,
        roles: Iterable[str],
        own: Grant | None = None,
        expires_s: float = math.inf,
        key_id: str = "",
    ) -> Principal:
        """Return a principal with roles, those that do not exist left out.

        Parameters
        ----------
        name : str
        roles : iterable of str
        own : Grant, optional
            What its token gives it besides, whose quota precedes those of roles.
        expires_s, key_id : float and str
            See Principal.
        """
        grants = [self._grants[role] for role in roles if role in self._grants]
        if own is not None:
            grants.insert(0, own)
        quota = next((grant.quota for grant in grants if grant.quota), "")
        return Principal(name, Access.of(grants), quota, expires_s, key_id)
