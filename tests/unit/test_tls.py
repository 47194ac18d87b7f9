"""Settings of TLS, and files that cannot be used."""

import logging
import re
import ssl
import time
from pathlib import Path

import pytest

from mdtool.adapters.certificates import Authority
from mdtool.core import reloading
from mdtool.core.errors import ConfigError, MdtoolError, StartupError
from mdtool.core.tls import ServerTls, TlsConfig, client_tls, is_tls, load_tls, server_tls
from tests.support.certificates import DAY, Certificates
from tests.support.commands import completed, output_of
from tests.support.mounted import Mounted

pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.fixture
def certificates(tmp_path):
    return Certificates(tmp_path / "certificates")


def test_without_settings_nobody_speaks_it():
    assert server_tls("gateway") is None
    assert client_tls("gateway") is None


def test_a_service_has_settings_of_its_own(certificates):
    Path("mdtool.toml").write_text(
        f'[tls]\nca = "{certificates["ca.pem"]}"\n[tls.gateway]\ncert = "gateway.pem"\n'
    )
    assert load_tls("gateway") == TlsConfig(cert="gateway.pem", ca=certificates["ca.pem"])
    assert load_tls("vwap") == TlsConfig(ca=certificates["ca.pem"])


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (
            "[tls.gatway]\ncert = 'a.pem'",
            r"mdtool.toml: \[tls.gatway\]: no such service; did you mean 'gateway'",
        ),
        (
            "[tls.gateway]\ncret = 'a.pem'",
            r"mdtool.toml: \[tls.gateway\] cret: no such setting; did you mean",
        ),
        ("[tls]\ncret = 'a.pem'", r"\[tls\] cret: no such setting; did you mean 'cert'"),
        ("[tls]\nclient-ca = 'a.pem'", r"\[tls\] client-ca: is used with a certificate; set cert"),
        ("[tls]\nkey = 'a.pem'", r"\[tls\] key: is used with a certificate; set cert"),
    ],
)
def test_settings_that_are_not_valid(settings, error):
    Path("mdtool.toml").write_text(settings)
    with pytest.raises(ConfigError, match=error):
        server_tls("gateway")


def test_files_that_cannot_be_used(certificates, tmp_path):
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("garbage")
    certificates.issue("old", valid=-DAY)
    cases = [
        ({"cert": str(tmp_path / "none.pem")}, "none.pem: No such file or directory"),
        ({"cert": str(garbage)}, "garbage.pem: not a certificate and its key"),
        ({"key": certificates["client.key"]}, "the key is not that of the certificate"),
        ({"key": ""}, "not a certificate and its key"),
        (
            {"cert": certificates["old.pem"], "key": certificates["old.key"]},
            "old.pem: certificate has expired; renew it",
        ),
        ({"client_ca": str(garbage)}, "garbage.pem: has no certificates"),
    ]
    sound = {"cert": certificates["server.pem"], "key": certificates["server.key"]}
    for wrong, error in cases:
        with pytest.raises(StartupError, match=re.escape(error)) as raised:
            ServerTls(TlsConfig(**(sound | wrong)))
        assert "\n" not in str(raised.value)


def test_an_encrypted_key_is_not_asked_for(certificates, tmp_path):
    from cryptography.hazmat.primitives import serialization

    data = certificates.authority.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(data)
    with pytest.raises(StartupError, match="its key is encrypted"):
        ServerTls(TlsConfig(cert=certificates["ca.pem"], key=str(encrypted)))


def test_files_are_read_again_once_they_change(certificates, caplog):
    caplog.set_level(logging.INFO)
    config = TlsConfig(cert=certificates["server.pem"], key=certificates["server.key"])
    tls = ServerTls(config)
    first, pem = tls.context, tls.pem
    assert tls.context is first
    key = Path(certificates["server.key"])
    sound = key.read_bytes()
    key.write_bytes(b"half of")
    assert tls.context is first
    assert tls.pem == pem
    assert tls.context is first
    assert caplog.text.count("the certificate before it remains in use") == 1
    key.write_bytes(sound)
    certificates.issue("server")
    assert tls.context is not first
    assert tls.pem != pem
    assert "read again" in caplog.text
    second = tls.context
    reloading.read_again()
    assert tls.context is not second


def test_a_volume_that_replaces_its_files_has_them_read_again(certificates, tmp_path):
    def issued():
        certificates.issue("server")
        return {name: Path(certificates[name]).read_text() for name in ("server.pem", "server.key")}

    mounted = Mounted(tmp_path / "mounted", issued())
    tls = ServerTls(TlsConfig(cert=mounted["server.pem"], key=mounted["server.key"]))
    for _ in range(3):
        before, pem = tls.context, tls.pem
        assert tls.context is before
        mounted.replace(issued())
        assert tls.context is not before
        assert tls.pem != pem


@pytest.mark.parametrize("made", [server_tls, client_tls])
def test_a_start_waits_for_a_key_that_is_being_replaced(certificates, monkeypatch, made):
    cert, key = Path(certificates["server.pem"]), Path(certificates["server.key"])
    Path("mdtool.toml").write_text(f'[tls]\ncert = "{cert}"\nkey = "{key}"\n')
    sound = key.read_bytes()
    key.write_bytes(Path(certificates["client.key"]).read_bytes())
    monkeypatch.setattr(time, "sleep", lambda _: key.write_bytes(sound))
    assert made("gateway").context.get_ciphers()


def test_the_first_bytes_of_tls():
    hello = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(
        ssl.MemoryBIO(), hello, server_hostname="localhost"
    )
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    assert is_tls(hello.read())
    assert not is_tls(b"")
    assert not is_tls(b"GET / HTTP/1.1")


class TestDevelopment:
    def test_its_output_is_a_settings_file(self):
        settings = output_of("tls", "dev", "certificates", "--client", "desk-7")
        Path("mdtool.toml").write_bytes(settings)
        server, client = server_tls("gateway"), client_tls("gateway")
        assert server.context.get_ciphers()
        assert client.name("127.0.0.1") == "127.0.0.1"
        assert not server.requires_certificate
        assert {each.name for each in Path("certificates").iterdir()} == {
            *("ca.pem", "ca.key", "server.pem", "server.key", "desk-7.pem", "desk-7.key")
        }
        assert all(key.stat().st_mode & 0o77 == 0 for key in Path("certificates").glob("*.key"))

    def test_the_authority_remains(self):
        output_of("tls", "dev", "certificates")
        before = {path: path.read_bytes() for path in Path("certificates").iterdir()}
        output_of("tls", "dev", "certificates")
        same = {path.name for path, data in before.items() if path.read_bytes() == data}
        assert same == {"ca.pem", "ca.key"}

    @pytest.mark.parametrize("name", ["../x", "ca", "server", ""])
    def test_names_that_are_no_files(self, name):
        ended = completed("tls", "dev", "certificates", "--client", name)
        assert ended.returncode == 2
        assert b"expects a name of letters" in ended.stderr

    def test_an_authority_that_is_not_one(self):
        Path("ca.pem").write_text("garbage")
        Path("ca.key").write_text("garbage")
        with pytest.raises(MdtoolError, match=r"ca\.pem and ca\.key cannot be used"):
            Authority.read(Path())
