"""Settings of authentication, `[auth]`, and the roles and quota classes beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mdtool.core.config import setting

NONE: Final = "none"
OPTIONAL: Final = "optional"
REQUIRED: Final = "required"


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """Whether clients of services authenticate, and by which tokens."""

    mode: str = setting(
        NONE,
        "Whether clients authenticate: with none, everybody may do everything; with optional, "
        "clients without a token have the role `anonymous`.",
        choices=(NONE, OPTIONAL, REQUIRED),
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
    leeway_s: float = setting(
        30.0, "How far the clocks of the issuer and the service may differ.", low=0.0, high=600.0
    )
