"""GraphiQL's page: where its assets come from, and what it may load."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from mdtool.core.errors import ConfigError
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.graphql.graphiql import _ASSETS, GraphiQL


async def page_of(assets: str) -> tuple[str, str]:
    """The page, and its content security policy."""
    response = await GraphiQL(assets).page(make_mocked_request("GET", "/graphiql"))
    return response.text, response.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("assets", "site"),
    [
        (GatewayConfig().graphiql_assets, "https://cdn.jsdelivr.net"),
        ("http://npm.intern:8081/mirror/", "http://npm.intern:8081"),
    ],
)
async def test_another_site_is_named_in_full_and_its_files_by_their_digests(assets, site):
    page, policy = await page_of(assets)
    for asset in _ASSETS:
        url = f"{assets.rstrip('/')}/{asset.package}@{asset.version}/{asset.path}"
        assert f'"{url}" integrity="sha384-{asset.digest}" crossorigin="anonymous"' in page
    assert f"script-src 'self' {site};" in policy
    assert "unsafe-eval" not in policy


async def test_an_address_cannot_break_out_of_its_attribute():
    page, _ = await page_of('https://x.example/"><script>alert(1)</script>')
    assert "<script>alert" not in page


async def test_a_folder_is_read_once_and_named_by_no_path(tmp_path):
    for asset in _ASSETS:
        path = tmp_path / asset.package / asset.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(asset.path)
    graphiql = GraphiQL(str(tmp_path))
    page, policy = await page_of(str(tmp_path))
    assert str(tmp_path) not in page
    assert "http" not in policy
    for asset in _ASSETS:
        name = asset.path.rpartition("/")[2]
        assert f'"/graphiql/assets/{name}"' in page
        request = make_mocked_request("GET", "/", match_info={"name": name})
        response = await graphiql.asset(request)
        assert response.body == asset.path.encode()
        assert response.content_type == ("text/css" if name.endswith("css") else "text/javascript")
    for name in ("graphiql.html", "..%2Fsecret", ""):
        request = make_mocked_request("GET", "/", match_info={"name": name})
        assert (await graphiql.asset(request)).status == 404


@pytest.mark.parametrize("assets", ["", "/no/such/folder", "ftp://example.com"])
def test_a_folder_that_has_not_the_files_is_told_with_what_makes_one(assets):
    with pytest.raises(ConfigError, match=r"npm install react@18\S+ react-dom@18\S+ graphiql@4"):
        GraphiQL(assets)
