"""API keys of roles, and services that require them."""

from __future__ import annotations

from pathlib import Path

from mdtool.adapters.identity.api_keys import ApiKey, add
from mdtool.adapters.identity.config import REQUIRED, AuthConfig
from mdtool.core.permissions import RIGHTS, Roles
from mdtool.services.gateway.server import Gateway
from mdtool.services.limits import QuotaConfig
from mdtool.services.security import Security

ROLES = {
    "all": {"read": ["*"], "write": ["*"], "rights": list(RIGHTS)},
    "some": {"read": ["AAPL", "NEW"], "write": ["AAPL"]},
    "denied": {"read": ["*"], "write": ["*"], "deny": ["msft", "SECRET*"]},
    "elsewhere": {"read": ["*"], "feeds": ["nothing"]},
}


class Keys:
    """A file of API keys, one of each role, each with the role's name."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "keys.jsonl"
        self._of = {role: self.make(role, role) for role in ROLES}

    def __getitem__(self, role: str) -> str:
        return self._of[role]

    def make(self, name: str, role: str, valid_s: int | None = None) -> str:
        """A further key of a role."""
        key, text = ApiKey.make(name, [role], valid_s)
        add(self.path, key)
        return text

    def configure(self, monkeypatch, mode: str = REQUIRED) -> None:
        """Make services authenticate their clients, as a file of settings does."""
        roles = "".join(
            f"[roles.{name}]\n" + "".join(f"{key} = {value!r}\n" for key, value in grant.items())
            for name, grant in ROLES.items()
        )
        settings = self.path.with_name("mdtool.toml")
        settings.write_text(f"[auth]\nmode = {mode!r}\nkeys = {str(self.path)!r}\n{roles}")
        monkeypatch.setenv("MDTOOL_CONFIG", str(settings))

    def add_settings(self, text: str) -> None:
        """Add to what `configure` has written, for services that start later."""
        settings = self.path.with_name("mdtool.toml")
        settings.write_text(settings.read_text() + text)

    def security(self, mode: str = REQUIRED, roles=ROLES, **quotas: QuotaConfig) -> Security:
        """What a service authenticates its clients by."""
        config = AuthConfig(mode=mode, keys=str(self.path))
        return Security(config, Roles(roles), quotas)


def required_by_gateways(monkeypatch, make) -> None:
    """Have gateways authenticate their clients, and no service behind them."""

    def load(service, *_):
        return make() if service == Gateway.name else None

    monkeypatch.setattr(Security, "load", load)
