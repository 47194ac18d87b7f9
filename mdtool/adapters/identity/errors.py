"""Why a token is not accepted."""

from __future__ import annotations

from mdtool.core.errors import MdtoolError


class TokenError(MdtoolError):
    """A token is missing, not valid, expired or revoked; the message never has any of it."""


class UnknownKeyError(TokenError):
    """A JWT names a key that the issuer may have published since its keys were read."""
