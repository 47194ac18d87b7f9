"""Certificates for development: an authority of one's own, and what it signs. Uses cryptography."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

from mdtool.core.errors import ConfigError, OutputError

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError as error:
    raise ConfigError(
        "tls dev: cryptography is not installed; pip install 'mdtool[auth]'"
    ) from error

LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_SKEW: Final = dt.timedelta(minutes=5)
"""How far clocks of other machines may be behind."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority: its certificate, and the key with which it signs others.

    Parameters
    ----------
    certificate : x509.Certificate
    key : ec.EllipticCurvePrivateKey
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, name: str, valid: dt.timedelta) -> Authority:
        """Make one that signs certificates of hosts and clients, not of further authorities."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = (
            _builder(_name(name), _name(name), key, valid)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    def issue(self, folder: Path, name: str, hosts: Sequence[str], valid: dt.timedelta) -> None:
        """Write a certificate and its key, `NAME.pem` and `NAME.key`, for a server and a client.

        Parameters
        ----------
        folder : Path
        name : str
            Of the files, and of the subject.
        hosts : sequence of str
            DNS names and IP addresses.
        valid : timedelta
            From now on; it may be negative, for a certificate that has expired.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        authority = self.key.public_key()
        builder = (
            _builder(_name(name), self.certificate.subject, key, valid)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(names, critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False
            )
        )
        _write_key(folder / f"{name}.key", key)
        _write(folder / f"{name}.pem", _pem(builder.sign(self.key, hashes.SHA256())), 0o644)

    def write(self, folder: Path) -> None:
        """Write its certificate and its key, `ca.pem` and `ca.key`."""
        _write_key(folder / "ca.key", self.key)
        _write(folder / "ca.pem", _pem(self.certificate), 0o644)

    @classmethod
    def read(cls, folder: Path) -> Authority | None:
        """Return the one that was written to a folder, None where there is none.

        Raises
        ------
        ConfigError
            When its files are not its certificate and key.
        """
        try:
            certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
            data = (folder / "ca.key").read_bytes()
            key = serialization.load_pem_private_key(data, None)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{folder}: ca.pem and ca.key cannot be used: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"{folder / 'ca.key'}: is not a key that mdtool tls dev has written")
        return cls(certificate, key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    valid: dt.timedelta,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, now + valid) - _SKEW)
        .not_valid_after(now + valid)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        address: IPv4Address | IPv6Address = ip_address(host)
    except ValueError:
        return x509.DNSName(host)
    return x509.IPAddress(address)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    data = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write(path, data, 0o600)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace a file at once, so that services never read half of it."""
    new = path.with_name(f"{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
        new.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error
