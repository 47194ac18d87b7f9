"""JWTs of one issuer: their signatures and claims checked, its keys fetched and kept.

References
----------
RFC 7519 (JWT), RFC 8725 (best current practices), RFC 9068 (access tokens), and OpenID Connect
Discovery 1.0, section 4.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from mdtool.adapters.identity.config import MAX_TOKEN_CHARS, AuthConfig
from mdtool.adapters.identity.discovery import discover, fetch
from mdtool.adapters.identity.errors import TokenError, UnknownKeyError
from mdtool.core.errors import ConfigError, PeerError
from mdtool.core.permissions import MAX_NAME_CHARS, Grant, GrantError, Principal, Roles

if TYPE_CHECKING:
    from joserfc.jwk import Key

log = logging.getLogger(__name__)

_MAX_MOMENT_S: Final = 1e12
ALGORITHMS: Final[Mapping[str, str]] = {
    **{f"{kind}{bits}": "RSA" for kind in ("RS", "PS") for bits in (256, 384, 512)},
    **{f"ES{bits}": "EC" for bits in (256, 384, 512)},
    "EdDSA": "OKP",
    "Ed25519": "OKP",
}
"""The algorithms that are accepted, none of them symmetric, and the kind of key of each."""
_CLAIM: Final = "mdtool"
_NO_HEADERS: Final = ("crit", "jku", "jwk", "x5c", "x5u")
"""Members of a header by which a token would choose its own key, or require what is unknown."""
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_REFRESH_S: Final = 300.0
_RETRY_S: Final = 10.0
"""How often the keys are fetched at most: a token with an unknown key cannot make it more."""


class JwtVerifier:
    """Verifies the JWTs of an issuer.

    Parameters
    ----------
    config : AuthConfig
        With an issuer.
    roles : Roles

    Attributes
    ----------
    keys : sequence of Key
        As they were last read, a new object then.

    Raises
    ------
    ConfigError
        When a setting is missing or not valid, or joserfc is not installed.
    """

    def __init__(self, config: AuthConfig, roles: Roles) -> None:
        try:
            import joserfc  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                "[auth] issuer: joserfc is not installed; pip install 'mdtool[auth]'"
            ) from error
        if not config.audience:
            raise ConfigError("[auth] audience: missing; name what the aud of tokens has to be")
        if urlsplit(config.issuer).scheme not in {"http", "https"}:
            raise ConfigError(f"[auth] issuer: {config.issuer!r} is not a valid URL")
        self._config = config
        self._roles = roles
        self.keys: Sequence[Key] = ()
        self._has_keys = False
        self._fetching: asyncio.Task[None] | None = None
        self._fetched_s = -math.inf

    async def run(self) -> None:
        """Keep the keys current until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(_REFRESH_S if self._has_keys else _RETRY_S)

    async def refresh(self) -> None:
        """Fetch the keys, unless that was done just now; those known remain where that fails."""
        if self._fetching is None:
            if time.monotonic() - self._fetched_s < _RETRY_S:
                return
            self._fetching = asyncio.create_task(self._refresh())
            self._fetching.add_done_callback(lambda _: setattr(self, "_fetching", None))
        await asyncio.shield(self._fetching)

    def verify(self, token: str, now_s: float) -> Principal:
        """Return whom a token names.

        Raises
        ------
        UnknownKeyError
            When its key is not among those known, which a refresh may change.
        TokenError
            When it is not valid.
        """
        header = _header(token)
        claims = self._claims(token, header)
        expires_s = check_claims(claims, self._config, now_s)
        own = claims.get(_CLAIM)
        if isinstance(own, dict):
            own = {key: value for key, value in own.items() if key != "roles"}
        try:
            grant = Grant.parse(own) if own else None
        except GrantError as error:
            raise TokenError(f"token: its claim mdtool: {error}") from error
        roles = _roles_at(claims, self._config.roles_claim)
        return self._roles.principal(f"sub:{claims['sub']}", roles, grant, expires_s)

    def _claims(self, token: str, header: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the claims of a token whose signature is one of the issuer's keys'."""
        from joserfc import jws
        from joserfc.errors import JoseError

        payload: bytes | None = None
        for key in self._fitting(header):
            with contextlib.suppress(JoseError, ValueError, TypeError):
                payload = jws.deserialize_compact(token, key, algorithms=[header["alg"]]).payload
                break
            if "kid" in header:
                raise TokenError("token: its signature is not valid")
        if payload is None:
            what = "its key is unknown" if self._has_keys else "the issuer's keys are unavailable"
            raise UnknownKeyError(f"token: {what}; try again")
        try:
            claims = json.loads(payload)
        except (ValueError, RecursionError):
            claims = None
        if not isinstance(claims, dict):
            raise TokenError("token: its claims are not an object")
        return claims

    def _fitting(self, header: Mapping[str, Any]) -> Sequence[Key]:
        kind, kid = ALGORITHMS[header["alg"]], header.get("kid")
        return [
            key
            for key in self.keys
            if key.key_type == kind
            and (kid is None or key.kid == kid)
            and key.get("use") in {None, "sig"}
            and key.get("alg") in {None, header["alg"]}
        ]

    async def _refresh(self) -> None:
        self._fetched_s = time.monotonic()
        try:
            keys = await self._read()
        except PeerError as error:
            kept = "; the keys known remain" if self._has_keys else ""
            log.warning("[auth] issuer: %s%s", error, kept)
        else:
            if not self._has_keys:
                log.info("[auth] issuer: read %d keys", len(keys))
            self.keys, self._has_keys = keys, True

    async def _read(self) -> Sequence[Key]:
        """Return the issuer's keys; raise PeerError when they cannot be read."""
        where = self._config.jwks
        if where and "://" not in where:
            try:
                return _keys_of(where, json.loads(Path(where).read_bytes()))  # noqa: ASYNC240
            except (OSError, ValueError) as error:
                raise PeerError(f"{where}: not a JWKS: {error}") from error
        if not where:
            where = (await discover(self._config.issuer, "jwks_uri"))["jwks_uri"]
        return _keys_of(where, await fetch(where))


def check_claims(claims: Mapping[str, Any], config: AuthConfig, now_s: float) -> float:
    """Return when a token expires, in s since the epoch, with the leeway.

    Raises
    ------
    TokenError
        When it is not valid at this time, of another issuer, or for others.
    """
    if claims.get("iss") != config.issuer:
        raise TokenError("token: iss is missing, or another issuer's")
    audience = claims.get("aud")
    if config.audience not in (audience if isinstance(audience, list) else [audience]):
        raise TokenError("token: aud is missing, or another audience")
    expires_s = _moment(claims, "exp")
    if expires_s is None:
        raise TokenError("token: exp is missing")
    if expires_s + config.leeway_s <= now_s:
        raise TokenError("token: expired")
    begins_s = _moment(claims, "nbf")
    if begins_s is not None and begins_s - config.leeway_s > now_s:
        raise TokenError("token: not valid yet")
    subject = claims.get("sub")
    if not (isinstance(subject, str) and 1 <= len(subject) <= MAX_NAME_CHARS):
        raise TokenError("token: sub is missing, or not a text of its own")
    if not subject.isprintable():
        raise TokenError("token: sub is not printable")
    return expires_s + config.leeway_s


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenError(f"token: {name} is not a time")
    # An integer may be larger than any float.
    if not -_MAX_MOMENT_S <= value <= _MAX_MOMENT_S:
        raise TokenError(f"token: {name} is not a time")
    return value


def _header(token: str) -> Mapping[str, Any]:
    """Return the header of a token, which is not verified yet."""
    if len(token) > MAX_TOKEN_CHARS:
        raise TokenError(f"token: takes more than {MAX_TOKEN_CHARS:,} characters")
    text = token.partition(".")[0]
    try:
        header = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
    except (ValueError, RecursionError) as error:
        raise TokenError("token: neither an API key nor a JWT") from error
    if not isinstance(header, dict) or token.count(".") != 2:
        raise TokenError("token: neither an API key nor a JWT")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise TokenError("token: its algorithm is not accepted; use an asymmetric one")
    for name in _NO_HEADERS:
        if name in header:
            raise TokenError(f"token: {name} in its header is not accepted")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise TokenError("token: its typ is not that of a JWT")
    if not isinstance(header.get("kid"), str | None):
        raise TokenError("token: its kid is not a text")
    return header


def _roles_at(claims: Mapping[str, Any], path: str) -> Sequence[str]:
    value: Any = claims
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if isinstance(value, str):
        return value.split()
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _keys_of(where: str, content: Any) -> Sequence[Key]:
    """Return the public keys of a JWKS, those of unknown kinds or not valid left out."""
    from joserfc.errors import JoseError
    from joserfc.jwk import import_key

    members = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(members, list):
        raise PeerError(f"{where}: not a JWKS")
    keys: list[Key] = []
    for member in members:
        try:
            key = import_key(member)
        except (JoseError, ValueError, TypeError, KeyError, AttributeError):
            continue
        labels = (key.kid, key.get("use"), key.get("alg"))
        if key.key_type in ALGORITHMS.values() and all(isinstance(x, str | None) for x in labels):
            keys.append(key)
    return keys
