"""Kafka with TLS and authentication: client settings in a file."""

from __future__ import annotations

import pytest

from tests.support.commands import completed
from tests.support.kafka_brokers import PASSWORD, USER
from tests.support.kafka_topics import Topics, sessions_of, url_of, write_ticks
from tests.support.services import service

TICKS = 1_000


@pytest.fixture
def settings(kafka) -> dict[str, str]:
    return {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(kafka.certificate),
        "sasl.mechanism": "PLAIN",
        "sasl.username": USER,
        "sasl.password": PASSWORD,
    }


def secured(url, kafka, tmp_path, settings) -> str:
    """The same topics for those who come over TLS, with a file of these settings."""
    file = tmp_path / "client.properties"
    lines = [f"{key} = {value}\n" for key, value in settings.items()]
    file.write_text("# who we are\n\n" + "".join(lines))
    return url.replace(kafka.address, kafka.secure_address) + f"&config={file}"


def test_ticks_become_sessions(kafka, tmp_path, settings):
    url = url_of(kafka)
    bus = secured(url, kafka, tmp_path, settings)
    path = tmp_path / "ticks.jsonl"
    sent = write_ticks(path, TICKS)
    with (
        service("serve-tcp", "--port", 0, "--bus", bus) as ingest,
        service("aggregate", "--port", 0, "--bus", bus),
    ):
        done = completed("send", path, ingest.address)
        assert done.returncode == 0, done.stderr
        with Topics(url) as topics:
            topics.wait(TICKS)
            assert topics.sessions() == sessions_of(sent)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"sasl.password": "guessed"}, "Authentication failed"),
        ({"ssl.ca.location": None}, "certificate verify failed"),
    ],
)
def test_rejected_clients_get_the_reason(kafka, tmp_path, settings, changed, reason):
    settings |= changed
    left = {key: value for key, value in settings.items() if value is not None}
    bus = secured(url_of(kafka, wait_s=10), kafka, tmp_path, left)
    ended = completed("serve-tcp", "--port", 0, "--bus", bus)
    assert ended.returncode == 3
    (line,) = ended.stderr.decode().splitlines()
    assert line.startswith(f"mdtool: kafka {kafka.secure_address}: cannot be reached (")
    assert reason in line
    assert line.endswith("tried for 10 s)")
    assert PASSWORD not in line


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("security.protocol", "client.properties, line 1: expects key=value"),
        ("\nacks=1\n", "client.properties, line 2: acks may not be set here; the file may set sec"),
        ("security.protocol=secret", 'client.properties: Invalid value "secret"'),
        ("sasl.nothing=1", 'client.properties: No such configuration property: "sasl.nothing"'),
        (b"\xff", "client.properties: is not a text file"),
        (None, "client.properties: No such file or directory"),
    ],
)
def test_an_invalid_file_of_settings_is_one_line(tmp_path, content, reason):
    file = tmp_path / "client.properties"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    ended = completed("vwap", "--port", 0, "--bus", f"kafka://127.0.0.1:1?config={file}")
    assert ended.returncode == 2
    (line,) = ended.stderr.decode().splitlines()
    assert reason in line
