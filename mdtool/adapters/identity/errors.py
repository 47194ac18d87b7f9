"""Why a token is not accepted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mdtool.core.errors import MdtoolError


class TokenError(MdtoolError):
    """A token is missing, not valid, expired or revoked; the message never has any of it.

    Attributes
    ----------
    headers : mapping of str to str
        Of answers over HTTP.
    """

    headers: Final[Mapping[str, str]] = {"WWW-Authenticate": "Bearer"}


class UnknownKeyError(TokenError):
    """A JWT names a key that the issuer may have published since its keys were read."""
