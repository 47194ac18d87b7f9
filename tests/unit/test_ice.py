"""The servers that WebRTC peers are told of, and credentials as a TURN server computes them."""

from __future__ import annotations

import pytest

from mdtool.core.errors import ConfigError
from mdtool.services.gateway.protocols.signaling import IceServers


def test_without_settings_there_are_none():
    assert IceServers("", "", "", 60).servers(0, "x") == []


def test_stun_servers_need_no_credentials():
    servers = IceServers("stun:a:3478, stuns:b", "", "", 60).servers(0, "x")
    assert servers == [{"urls": ["stun:a:3478", "stuns:b"]}]


def test_credentials_are_what_a_turn_server_with_the_secret_expects():
    (server,) = IceServers("", "turn:t:3478,turns:t:5349?transport=tcp", "s3cret", 600).servers(
        1_700_000_000, "alice"
    )
    assert server["urls"] == ["turn:t:3478", "turns:t:5349?transport=tcp"]
    assert server["username"] == "1700000600:alice"
    # printf 1700000600:alice | openssl dgst -sha1 -hmac s3cret -binary | base64
    assert server["credential"] == "bUIJIVaC05oyFgKsQvKAparqg1Q="


@pytest.mark.parametrize(
    ("stun", "turn", "secret"),
    [
        ("stun.example.com", "", ""),
        ("turn:x", "", ""),
        ("stun:", "", ""),
        ("", "stun:x", "s"),
        ("", "turn:x", ""),
    ],
)
def test_what_is_no_server_is_a_wrong_setting(stun, turn, secret):
    with pytest.raises(ConfigError):
        IceServers(stun, turn, secret, 60)
