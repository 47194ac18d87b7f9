"""Many clients of the live gateway at once, and TLS."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections import Counter

import databento_dbn as dbn
import pytest

from mdtool.core.addresses import parse_address
from mdtool.core.errors import StartupError, UsageError
from mdtool.wire.live import Accepted, Rejected, Start, authentication
from tests.support.live_clients import KEY, LiveClient, client, gateway, session, wants
from tests.support.waiting import bounded

CROWD = 1_000


async def test_a_thousand_connects_at_once_while_another_session_reads(live_trades):
    """As many as there may be are served; each of the others learns why it is not."""

    async def connect(address: str) -> str:
        async with client(address) as connected:
            try:
                await connected.login()
            except EOFError:
                return (await connected.answer(Rejected)).reason
            connected.send(wants("AAPL", start_ns=0), Start())
            received = await connected.rest()
            return str(sum(isinstance(each, dbn.TradeMsg) for each in received))

    settings = {"max_sessions": 50, "at_end": "close", "login_s": 600.0}
    async with gateway(live_trades, **settings) as address, client(address) as early:
        await early.login()
        outcomes = Counter(await asyncio.gather(*[connect(address) for _ in range(CROWD)]))
        assert outcomes.keys() <= {"2", "connection limit of 50 reached"}
        assert outcomes["2"] >= 49
        early.send(wants("AAPL", start_ns=0), Start())
        assert sum(isinstance(each, dbn.TradeMsg) for each in await early.rest()) == 2


@pytest.mark.parametrize("text", ["schéma=trades\n", "schema=trades|symbols=€\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
async def test_lines_in_other_encodings(live_trades, text, encoding):
    async with gateway(live_trades) as address, client(address) as wrong:
        await wrong.login()
        wrong.send(text.encode(encoding))
        *_, error = await wrong.rest()
        assert int(error.code) == 5
        assert len(await session(address, wants("AAPL"))) == 5


async def test_a_line_without_end(live_trades):
    async with gateway(live_trades) as address, client(address) as endless:
        await endless.login()
        endless.send(b"schema=trades|symbols=" + b"A," * (1 << 19))
        *_, error = await endless.rest()
        assert "more than 262,144 bytes" in error.err


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of 127.0.0.1 and its key, in one file each."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    extension = ["-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run(
            [*command.split(), *extension, "-keyout", key, "-out", cert],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return cert, key


class TestTls:
    async def test_a_session_to_its_end(self, live_trades, certificate):
        cert, key = map(str, certificate)
        async with gateway(live_trades, tls_cert=cert, tls_key=key) as address, bounded():
            host, port = parse_address(address)
            trusted = ssl.create_default_context(cafile=cert)
            connection = await asyncio.open_connection(host, port, ssl=trusted)
            connected = LiveClient(*connection)
            await connected.login()
            connected.send(wants("AAPL"), Start())
            received = await connected.rest()
            assert sum(isinstance(each, dbn.TradeMsg) for each in received) == 2
            connection[1].close()

    async def test_who_does_not_speak_it_has_no_session(self, live_trades, certificate):
        cert, key = map(str, certificate)
        settings = {"tls_cert": cert, "tls_key": key}
        async with gateway(live_trades, **settings) as address, client(address) as plain:
            plain.send(authentication("", KEY, "XNAS.ITCH"))
            with pytest.raises((EOFError, ConnectionError)):
                await plain.answer(Accepted)

    @pytest.mark.parametrize(
        ("settings", "error"),
        [
            ({"tls_key": "key.pem"}, UsageError),
            ({"tls_cert": "/nothing.pem"}, StartupError),
            ({"tls_cert": __file__}, StartupError),
        ],
    )
    async def test_files_that_cannot_be_used(self, live_trades, settings, error):
        with pytest.raises(error, match="tls"):
            async with gateway(live_trades, **settings):
                pass
