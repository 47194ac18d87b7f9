"""Certificates of an authority that a test session makes, and settings that use them."""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path

from mdtool.adapters.certificates import LOCAL_NAMES, Authority

DAY = dt.timedelta(days=1)


class Certificates:
    """A folder with an authority, `ca.pem`, and what it signed: `server.pem`, `client.pem`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.authority = Authority.make("tests", 10 * DAY)
        self.authority.write(folder)
        self.issue("server")
        self.issue("client", ["desk-7"])

    def __getitem__(self, file: str) -> str:
        return str(self.folder / file)

    def read(self, file: str) -> bytes:
        return (self.folder / file).read_bytes()

    def issue(self, name, hosts=LOCAL_NAMES, valid=DAY) -> None:
        self.authority.issue(self.folder, name, hosts, valid)

    def use(self, monkeypatch, **settings) -> None:
        """Have services and clients of this process and its children use them."""
        chosen = {"cert": self["server.pem"], "key": self["server.key"], "ca": self["ca.pem"]}
        for name, value in {**chosen, **settings}.items():
            monkeypatch.setenv(f"MDTOOL_TLS_{name.upper()}", value)

    def context(self, name=None) -> ssl.SSLContext:
        """What a client of any library trusts, with a certificate of its own or without."""
        context = ssl.create_default_context(cafile=self["ca.pem"])
        if name is not None:
            context.load_cert_chain(self[f"{name}.pem"], self[f"{name}.key"])
        return context
