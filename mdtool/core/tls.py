"""TLS: its settings, the certificates of listeners, and whom clients trust."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import logging
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from mdtool.core import reloading
from mdtool.core.addresses import parse_address
from mdtool.core.config import (
    SECTIONS,
    did_you_mean,
    load,
    load_table,
    load_tables,
    section_place,
    setting,
)
from mdtool.core.errors import ConfigError, MdtoolError, StartupError

log = logging.getLogger(__name__)

SECTION: Final = "tls"
SYSTEM: Final = "system"
"""As `ca`: the certificate authorities that the machine trusts."""
HANDSHAKE_S: Final = 10.0
"""How long a handshake may take."""
GOODBYE_S: Final = 2.0
"""How long the peer may take to answer the end of a connection."""
TLS_TO_PLAIN: Final = "the client speaks TLS, and this port does not; set [tls] cert"
NO_TLS: Final = "the peer does not speak TLS"
_REPLACING_S: Final = 0.2
"""How long after its certificate a key may be replaced."""
_VERSION, _VALIDITY, _SHORT_TIME, _LONG = 0xA0, 3, 0x17, 0x80
"""Of a certificate in DER: the tag of its version, the place of its validity, the tag of a time
with two digits of the year, and the first of the lengths that are longer than a byte."""
_ALERT, _HANDSHAKE, _MAJOR = 0x15, 0x16, 0x03
_REASONS: Final = {
    "WRONG_VERSION_NUMBER": NO_TLS,
    "HTTP_REQUEST": NO_TLS,
    "HTTPS_PROXY_REQUEST": NO_TLS,
    "RECORD_LAYER_FAILURE": NO_TLS,
    "NO_SHARED_CIPHER": "the peer has no cipher in common with this one",
    "UNSUPPORTED_PROTOCOL": "the peer speaks a version of TLS before 1.2",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the peer speaks another version of TLS",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer has no certificate, which is required here",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "requires a client's certificate; set [tls] cert",
    "TLSV1_ALERT_UNKNOWN_CA": "the peer does not trust the certificate of this side",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the peer rejects the certificate of this side",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the certificate of this side has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the peer rejects the certificate of this side",
    "KEY_VALUES_MISMATCH": "the key is not that of the certificate",
}
"""What OpenSSL's reasons mean to an operator."""


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Settings of encrypted connections, `[tls]`; those of one service are in `[tls.SERVICE]`."""

    cert: str = setting("", "Certificate, a PEM file: with it services listen with TLS.")
    key: str = setting("", "Private key of cert; by default in the same file.")
    client_ca: str = setting(
        "", "Authorities whose certificates clients must have, a PEM file; by default none must."
    )
    ca: str = setting(
        "", "Authorities that clients trust, a PEM file, or system, the default with cert."
    )
    name: str = setting(
        "", "Name that servers' certificates must have; by default the host that is connected to."
    )


def load_tls(service: str) -> TlsConfig:
    """Return the settings of a service's listener, and of its clients.

    Raises
    ------
    ConfigError
        When a setting is not valid.
    """
    config = load(TlsConfig, SECTION, {})
    tables = load_tables(SECTION)
    for name in tables:
        if name not in SECTIONS:
            where = section_place(SECTION, name)
            raise ConfigError(f"{where}: no such service{did_you_mean(name, SECTIONS)}")
    if service not in tables:
        return config
    given = tables[service]
    own = load_table(TlsConfig, SECTION, service, given)
    names = [key.replace("-", "_") for key in given]
    return replace(config, **{name: getattr(own, name) for name in names})


_Stamps = tuple[tuple[int, int, int] | None, ...]
"""By which files are known to have changed."""


class ServerTls:
    """The TLS of a listener, whose files are read again once they change, and at SIGHUP.

    Connections keep the certificate that they began with. Files that cannot be used, as while
    they are being replaced, leave the last ones in force.

    Parameters
    ----------
    config : TlsConfig
        With a certificate.
    where : str
        What names the certificate in errors: a setting, an option.

    Raises
    ------
    StartupError
        When a file cannot be read, the key is not the certificate's, or it has expired.
    """

    def __init__(self, config: TlsConfig, where: str = f"[{SECTION}] cert") -> None:
        self._config = config
        self._where = where
        files = (config.cert, config.key, config.client_ca)
        self._files = [Path(file) for file in files if file]
        self._stamp = self._stamps()
        self._context = _steadily(self._files, self._load)
        reloading.add(self)

    @property
    def requires_certificate(self) -> bool:
        """Whether clients without a certificate are rejected."""
        return bool(self._config.client_ca)

    @property
    def context(self) -> ssl.SSLContext:
        """The context of a connection that begins now."""
        self._refresh()
        return self._context

    @property
    def pem(self) -> tuple[bytes, bytes, bytes | None]:
        """The private key, the certificate and the clients' authorities, as files have them."""
        self._refresh()
        return self._pem

    def read_again(self) -> None:
        """As `Reloadable.read_again`."""
        self._read(self._stamps())

    def _refresh(self) -> None:
        stamp = self._stamps()
        if stamp != self._stamp:
            self._read(stamp)

    def _read(self, stamp: _Stamps) -> None:
        self._stamp = stamp
        try:
            self._context = self._load()
        except MdtoolError as error:
            log.warning("%s; the certificate before it remains in use", error)
        else:
            log.info("%s %s: read again", self._where, self._config.cert)

    def _stamps(self) -> _Stamps:
        return _stamps(self._files)

    def _load(self) -> ssl.SSLContext:
        config, where = self._config, f"{self._where} {self._config.cert}"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        _load_chain(context, config, where)
        _check_dates(context, config.cert, where)
        if config.client_ca:
            _trust(context, config.client_ca, f"[{SECTION}] client-ca")
            context.verify_mode = ssl.CERT_REQUIRED
        try:
            self._pem = (
                Path(config.key or config.cert).read_bytes(),
                Path(config.cert).read_bytes(),
                Path(config.client_ca).read_bytes() if config.client_ca else None,
            )
        except OSError as error:
            raise StartupError(f"{where}: {error.strerror}") from error
        return context


def server_tls(service: str) -> ServerTls | None:
    """Return the TLS of a service's listener, None where it has none.

    Raises
    ------
    ConfigError, StartupError
        When a setting is not valid, or as `ServerTls` does.
    """
    config = load_tls(service)
    if config.cert:
        return ServerTls(config)
    for name, value in (("key", config.key), ("client-ca", config.client_ca)):
        if value:
            raise ConfigError(f"[{SECTION}] {name}: is used with a certificate; set cert too")
    return None


@dataclass(frozen=True, slots=True)
class ClientTls:
    """The TLS of connections to a service.

    Attributes
    ----------
    context : ssl.SSLContext
    config : TlsConfig
    """

    context: ssl.SSLContext
    config: TlsConfig

    def name(self, host: str) -> str:
        """Return the name that the certificate of a host must have."""
        return self.config.name or host

    def pem(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Return the trusted authorities, the key and the certificate, as files have them.

        Raises
        ------
        StartupError
            When a file cannot be read.
        """
        config = self.config
        trusted = config.ca
        if trusted in {"", SYSTEM}:
            trusted = ssl.get_default_verify_paths().cafile or ""
        try:
            return tuple(  # type: ignore[return-value]
                Path(file).read_bytes() if file else None
                for file in (trusted, config.cert and (config.key or config.cert), config.cert)
            )
        except OSError as error:
            raise StartupError(f"[{SECTION}] {error.filename}: {error.strerror}") from error


def client_tls(service: str) -> ClientTls | None:
    """Return the TLS with which clients connect to a service, None where they use none.

    They do where the service listens with TLS by the same settings, or where these name whom to
    trust. A client has the certificate of the settings, for services that require one.

    Raises
    ------
    ConfigError, StartupError
        When a setting is not valid, or a file cannot be used.
    """
    config = load_tls(service)
    if not (config.cert or config.ca):
        return None
    files = [Path(file) for file in (config.cert, config.key, config.ca) if file]
    return ClientTls(_steadily(files, lambda: _client_context(config)), config)


def connect_options(service: str, host: str) -> Mapping[str, Any]:
    """Return the options with which asyncio connects to a service at a host, none without TLS.

    Raises
    ------
    ConfigError, StartupError
        As `client_tls` does.
    """
    tls = client_tls(service)
    if tls is None:
        return {}
    return {
        "ssl": tls.context,
        "server_hostname": tls.name(host),
        "ssl_handshake_timeout": HANDSHAKE_S,
        "ssl_shutdown_timeout": GOODBYE_S,
    }


def http_options(service: str, address: str) -> Mapping[str, Any]:
    """Return the options with which aiohttp requests a service at HOST:PORT, none without TLS.

    Raises
    ------
    ConfigError, StartupError, UsageError
        As `client_tls` and `parse_address` do.
    """
    tls = client_tls(service)
    if tls is None:
        return {}
    return {"ssl": tls.context, "server_hostname": tls.name(parse_address(address)[0])}


class PeerCertificate(NamedTuple):
    """What the certificate of a connection's peer says, which an authority of `client-ca` signed.

    Attributes
    ----------
    name : str
        The first DNS name of its alternative names, else the common name of its subject.
    ends_s : float
        When it expires, in s since the epoch.
    """

    name: str
    ends_s: float


def peer_certificate(transport: asyncio.BaseTransport) -> PeerCertificate | None:
    """Return the certificate of a connection's peer, None without one that has a name."""
    certificate = transport.get_extra_info("peercert")
    if not certificate:
        return None
    ends_s = _seconds(certificate["notAfter"])
    for kind, name in certificate.get("subjectAltName", ()):
        if kind == "DNS":
            return PeerCertificate(str(name), ends_s)
    for (key, value), *_ in certificate.get("subject", ()):
        if key == "commonName":
            return PeerCertificate(str(value), ends_s)
    return None


_seconds = functools.lru_cache(1_024)(ssl.cert_time_to_seconds)


@functools.lru_cache(1_024)
def certificate_end(pem: str) -> float:
    """Return when a verified certificate expires, in s since the epoch.

    The standard library reads that of a connection of its own only.
    """
    der = ssl.PEM_cert_to_DER_cert(pem)
    _, signed = next(_elements(der))
    _, body = next(_elements(signed))
    # The version is optional, and the only element with this tag.
    fields = [value for tag, value in _elements(body) if tag != _VERSION]
    _, (tag, end) = _elements(fields[_VALIDITY])
    text = end.decode("ascii")
    if tag == _SHORT_TIME:
        text = ("19" if text >= "5" else "20") + text  # RFC 5280, 4.1.2.5.1
    return dt.datetime.strptime(text, "%Y%m%d%H%M%S%z").timestamp()


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tags and the contents of a sequence in DER, of tags of one byte."""
    at = 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length > _LONG:
            width = length - _LONG
            length = int.from_bytes(der[at : at + width], "big")
            at += width
        yield tag, der[at : at + length]
        at += length


def is_tls(data: bytes | bytearray | memoryview) -> bool:
    """Return whether the first bytes of a peer are TLS: the hello of a client, or an alert."""
    return len(data) > 1 and data[0] in {_ALERT, _HANDSHAKE} and data[1] == _MAJOR


def reason_of_tls(error: ssl.SSLError) -> str:
    """Return in words why a handshake failed, or files cannot be used."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of the peer is rejected: {error.verify_message.rstrip('.')}"
    reason = error.reason or ""
    return _REASONS.get(reason) or reason.replace("_", " ").lower() or str(error)


def _client_context(config: TlsConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if config.ca in {"", SYSTEM}:
        context.load_default_certs()
    else:
        _trust(context, config.ca, f"[{SECTION}] ca")
    if config.cert:
        _load_chain(context, config, f"[{SECTION}] cert {config.cert}")
    return context


def _steadily(files: Sequence[Path], load: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Load files that may be being replaced, a certificate before its key: again once they were."""
    while True:
        before = _stamps(files)
        try:
            return load()
        except StartupError:
            time.sleep(_REPLACING_S)
            if _stamps(files) == before:
                raise


def _load_chain(context: ssl.SSLContext, config: TlsConfig, where: str) -> None:
    def no_password() -> bytes:
        raise StartupError(f"{where}: its key is encrypted; give one without a password")

    try:
        context.load_cert_chain(config.cert, config.key or None, no_password)
    except ssl.SSLError as error:
        why = reason_of_tls(error) if error.reason in _REASONS else "not a certificate and its key"
        raise StartupError(f"{where}: {why}; give PEM files") from error
    except OSError as error:
        raise StartupError(f"{where}: {error.strerror or error}; give PEM files") from error


def _trust(context: ssl.SSLContext, file: str, where: str) -> None:
    try:
        context.load_verify_locations(file)
    except ssl.SSLError as error:
        raise StartupError(f"{where} {file}: has no certificates; give a PEM file") from error
    except OSError as error:
        raise StartupError(f"{where} {file}: {error.strerror or error}") from error


def _check_dates(context: ssl.SSLContext, cert: str, where: str) -> None:
    """Reject a certificate that every client would: it is verified as its own authority."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cert)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server),
        context.wrap_bio(to_server, to_client, server_side=True),
    )
    try:
        for end in (*ends, *ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLCertVerificationError as error:
        raise StartupError(f"{where}: {error.verify_message}; renew it") from error


def _stamps(files: Sequence[Path]) -> _Stamps:
    return tuple(_stamp(file) for file in files)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)  # noqa: PTH116 - at every connection
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
