"""Settings of authentication, `[auth]`, and the roles and quota classes beside it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mdtool.core.config import load, setting
from mdtool.core.errors import InputError

NONE: Final = "none"
OPTIONAL: Final = "optional"
REQUIRED: Final = "required"
TOKEN_VARIABLE: Final = "MDTOOL_TOKEN"  # noqa: S105 - the name of a variable
MODES: Final = (NONE, OPTIONAL, REQUIRED)
MAX_TOKEN_CHARS: Final = 16_384


def auth_mode() -> Any:
    """Return the setting of a service that goes before `[auth] mode`."""
    return setting(
        None,
        "Whether clients authenticate, in place of [auth] mode; beyond this machine, none has to "
        "be said.",
        choices=MODES,
        is_common=True,
        example=REQUIRED,
    )


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """Whether clients of services authenticate, and by which tokens."""

    mode: str = setting(
        NONE,
        "Whether clients authenticate: with none, everybody may do everything; with optional, "
        "clients without a token have the role `anonymous`.",
        choices=MODES,
        is_common=True,
    )
    keys: str = setting("", "File of API keys, which `mdtool token` writes.", is_common=True)
    issuer: str = setting(
        "", "URL of the issuer of JWTs, exactly as their `iss` has it.", is_common=True
    )
    audience: str = setting("", "What the `aud` of JWTs has to name.", is_common=True)
    jwks: str = setting(
        "",
        "URL or file of the issuer's public keys; by default, its OIDC discovery names them.",
    )
    roles_claim: str = setting(
        "mdtool.roles",
        "The claim of JWTs with the names of roles, members of objects separated by dots.",
    )
    client_id: str = setting(
        "",
        "Client of the issuer, as which users of the gateway's pages sign in; without it "
        "they paste a token.",
    )
    client_secret: str = setting(
        "", "Secret of client-id, which the gateway alone needs; none for a public client."
    )
    scope: str = setting("openid", "The scope that pages request of the issuer.")
    services_secret: str = setting(
        "",
        "Secret by which services authenticate to each other; `serve all` makes one for each run.",
    )
    quotas_redis: str = setting(
        "",
        "Redis server through which services that name it count quotas together, such as "
        "redis://HOST:PORT.",
    )
    leeway_s: float = setting(
        30.0, "How far the clocks of the issuer and the service may differ.", low=0.0, high=600.0
    )


def token_file() -> Any:
    """Return the setting of a client's token."""
    return setting(
        None,
        f"File with the token for the server; by default that of {TOKEN_VARIABLE}.",
        example="token.txt",
    )


def client_token(file: str | None) -> str:
    """Return the token of a client: of a file, of the environment, or that of services; or none.

    Raises
    ------
    InputError
        When the file cannot be read.
    """
    if file is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip() or services_secret()
    try:
        return Path(file).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not a token" if isinstance(error, UnicodeError) else error.strerror
        raise InputError(f"{file}: {reason}; give a file that has a token") from error


def services_secret() -> str:
    """Return the token by which a service authenticates to another, empty without one."""
    return load(AuthConfig, "auth", {}).services_secret


def bearer_header(token: str) -> dict[str, str]:
    """Return the header of a request that has a token, none without one."""
    return {"Authorization": f"Bearer {token}"} if token else {}
