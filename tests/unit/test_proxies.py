"""What the headers of proxies say of a request."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from mdtool.core.errors import ConfigError
from mdtool.services.gateway.proxies import FORWARDED, X_FORWARDED_FOR, Proxies

IPV6, NETWORK = "2001:db8::17", "2001:db8::/64"


@pytest.mark.parametrize(
    ("header", "count", "text", "client"),
    [
        (X_FORWARDED_FOR, 1, "192.0.2.1", "192.0.2.1"),
        (X_FORWARDED_FOR, 1, "192.0.2.1:4711", "192.0.2.1"),
        (X_FORWARDED_FOR, 1, IPV6, NETWORK),
        (X_FORWARDED_FOR, 1, f"[{IPV6}]", NETWORK),
        (X_FORWARDED_FOR, 1, f"[{IPV6}]:4711", NETWORK),
        (X_FORWARDED_FOR, 1, "::ffff:192.0.2.1", "192.0.2.1"),
        (X_FORWARDED_FOR, 1, "forged, 192.0.2.1", "192.0.2.1"),
        (X_FORWARDED_FOR, 2, "forged, 192.0.2.1 , 198.51.100.9", "192.0.2.1"),
        (FORWARDED, 1, "for=192.0.2.1;proto=http;by=203.0.113.43", "192.0.2.1"),
        (FORWARDED, 1, 'For="192.0.2.1:4711"', "192.0.2.1"),
        (FORWARDED, 1, f'proto=https ; for="[{IPV6}]:4711"', NETWORK),
        (FORWARDED, 1, f'for=forged, for="[{IPV6}]"', NETWORK),
        (FORWARDED, 2, 'for="a, b\\"c", for=192.0.2.1, for=198.51.100.9', "192.0.2.1"),
        (FORWARDED, 1, f'for="forged, for="[{IPV6}]:4711"', NETWORK),
        (FORWARDED, 1, f'for="forged, for="[{IPV6}]";host="a,b"', NETWORK),
        (FORWARDED, 2, 'for="forged, for="192.0.2.1", for=198.51.100.9', "192.0.2.1"),
        (FORWARDED, 1, "for=_hidden", "_hidden"),
        (FORWARDED, 1, 'for="_hidden:_port"', "_hidden"),
        (FORWARDED, 1, 'for="unknown:4711"', "unknown"),
        (FORWARDED, 1, "for=unknown", "unknown"),
    ],
)
def test_the_client_is_whom_the_last_trusted_proxy_saw(header, count, text, client):
    request = make_mocked_request("GET", "/", headers={header: text})
    assert Proxies(count, header).client_of(request) == client


@pytest.mark.parametrize(
    ("header", "other"), [(X_FORWARDED_FOR, FORWARDED), (FORWARDED, X_FORWARDED_FOR)]
)
def test_a_header_that_proxies_do_not_add_to_is_not_believed(header, other):
    request = make_mocked_request("GET", "/", headers={header: "for=192.0.2.1"})
    assert Proxies(1, other).client_of(request) == (request.remote or "")


@pytest.mark.parametrize("text", ['for="192.0.2.1', "for=;;=,\\,", ",,,", '"', "for", "é=1"])
def test_a_header_against_the_grammar_is_read_as_far_as_it_goes(text):
    request = make_mocked_request("GET", "/", headers={FORWARDED: text})
    assert isinstance(Proxies(1, FORWARDED).client_of(request), str)


@pytest.mark.parametrize(
    ("proxies", "path", "prefix", "base"),
    [
        (Proxies(), "/docs", "/md", ""),
        (Proxies(1), "/docs", "/md", "/md"),
        (Proxies(1), "/docs", "/md/", "/md"),
        (Proxies(1), "/docs", "/forged, /md", "/md"),
        (Proxies(2), "/docs", "/a, /b", "/a/b"),
        (Proxies(1), "/docs", '"><script>', ""),
        (Proxies(1), "/docs", "//elsewhere.example", ""),
        (Proxies(base_path="/md/"), "/md/docs", None, "/md"),
        (Proxies(base_path="/md"), "/md", None, "/md"),
        (Proxies(base_path="/md"), "/mdocs", None, ""),
        (Proxies(base_path="/md"), "/docs", None, ""),
        (Proxies(1, base_path="/md"), "/md/docs", "/a", "/a/md"),
    ],
)
def test_links_of_pages_are_relative_to_what_proxies_removed(proxies, path, prefix, base):
    headers = {} if prefix is None else {"X-Forwarded-Prefix": prefix}
    assert proxies.base_of(make_mocked_request("GET", path, headers=headers)) == base


@pytest.mark.parametrize("text", ["md", "/m d", "/md?x", "//md", "/<md>", "https://x.example/md"])
def test_a_base_path_that_is_no_path_is_a_wrong_setting(text):
    with pytest.raises(ConfigError, match="base_path"):
        Proxies(base_path=text)
