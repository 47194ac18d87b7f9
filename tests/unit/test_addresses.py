"""Network addresses as text."""

from __future__ import annotations

import pytest

from mdtool.core.addresses import format_address, parse_address
from mdtool.core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:50050", "127.0.0.1", 50050),
        ("localhost:0", "localhost", 0),
        ("[::1]:65535", "::1", 65535),
    ],
)
def test_addresses_read_and_print(text, host, port):
    assert parse_address(text) == (host, port)
    assert format_address(host, port) == text


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":50050", "host:65536", "host:-1", "host:x", "::1:80", "[]:80"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(UsageError, match="HOST:PORT"):
        parse_address(text)
