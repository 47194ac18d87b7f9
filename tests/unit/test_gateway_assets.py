"""Third-party files of the gateway's pages: where they come from, and what a page may load."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json

import pytest
from aiohttp.test_utils import make_mocked_request

from mdtool.core.errors import ConfigError
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.pages.assets import LIBRARIES, Asset, Assets
from mdtool.services.gateway.pages.pages import Dashboard, Docs, GraphiQL
from mdtool.services.gateway.proxies import Proxies
from tests.support.requirements import node_modules

SMALL = {
    "chart": (
        Asset("chart", "1.2.3", "dist/chart.css", ""),
        Asset("chart", "1.2.3", "chart.js", ""),
    ),
    "scoped": (Asset("@org/scoped", "4.5.6", "scoped.js", ""),),
}


def digested(libraries):
    """Libraries whose files contain their own names, with the digests of that."""
    return {
        name: tuple(
            asset._replace(
                digest=base64.b64encode(hashlib.sha384(asset.file.encode()).digest()).decode()
            )
            for asset in assets
        )
        for name, assets in libraries.items()
    }


@pytest.fixture
def folder(tmp_path):
    """A node_modules with the files of `SMALL`."""
    for asset in itertools.chain(*SMALL.values()):
        path = tmp_path / asset.package / asset.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(asset.file)
    return tmp_path


async def page_of(page) -> tuple[str, str]:
    """The HTML of a page, and its content security policy."""
    response = await page(make_mocked_request("GET", "/"))
    return response.text, response.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("source", "site"),
    [
        (GatewayConfig().assets, "https://cdn.jsdelivr.net"),
        ("http://npm.intern:8081/mirror/", "http://npm.intern:8081"),
    ],
)
@pytest.mark.parametrize("library", ["graphiql", "lightweight-charts", "swagger-ui"])
async def test_a_page_loads_pinned_versions_and_digests_from_one_other_site(source, site, library):
    assets = Assets(source)
    pages = {
        "graphiql": GraphiQL(assets, Proxies()),
        "lightweight-charts": Dashboard(assets, Proxies()),
        "swagger-ui": Docs({}, assets, Proxies()),
    }
    html, policy = await page_of(pages[library].page)
    for asset in LIBRARIES[library]:
        url = f"{source.rstrip('/')}/{asset.package}@{asset.version}/{asset.file}"
        assert f'"{url}" integrity="sha384-{asset.digest}" crossorigin="anonymous"' in html
    assert f"script-src 'self' {site};" in policy
    assert "unsafe-eval" not in policy


def test_an_address_cannot_break_out_of_its_attribute():
    assert "<script>alert" not in Assets('https://x.example/"><script>alert(1)</script>').tags(
        "graphiql"
    )


async def test_a_folder_is_read_once_and_served_below_one_path(folder):
    assets = Assets(str(folder), SMALL)
    tags = assets.tags("chart") + assets.tags("scoped")
    assert assets.origin == "'self'"
    for asset in itertools.chain(*SMALL.values()):
        path = f"{asset.package}/{asset.file}"
        assert f'"assets/{path}">' in tags
        (folder / path).unlink()
        response = await assets.file(make_mocked_request("GET", "/", match_info={"path": path}))
        assert response.body == asset.file.encode()
        assert response.content_type == ("text/css" if path.endswith("css") else "text/javascript")
    for path in ("chart/other.js", "../secret", "chart/..%2Fsecret"):
        request = make_mocked_request("GET", "/", match_info={"path": path})
        assert (await assets.file(request)).status == 404


def test_a_file_that_is_not_the_pinned_one_is_served_with_a_warning(folder, caplog):
    Assets(str(folder), digested(SMALL))
    assert not caplog.messages
    (folder / "chart" / "chart.js").write_text("another version")
    Assets(str(folder), digested(SMALL))
    path = folder / "chart" / "chart.js"
    assert caplog.messages == [
        f"assets: {path} is not the file of chart@1.2.3; the page may not work"
    ]


@pytest.mark.parametrize("source", ["", "/no/such/folder", "ftp://example.com"])
def test_a_folder_without_the_files_is_rejected_with_the_command_that_makes_one(source):
    with pytest.raises(ConfigError, match=r"npm install graphiql@4\S+ react@18\S+ .*swagger-ui-d"):
        Assets(source)


@pytest.mark.parametrize(
    "asset", [*itertools.chain(*LIBRARIES.values())], ids=lambda asset: asset.file
)
def test_versions_and_digests_are_those_of_the_npm_packages(asset):
    package = node_modules() / asset.package
    assert json.loads((package / "package.json").read_text())["version"] == asset.version
    digest = hashlib.sha384((package / asset.file).read_bytes()).digest()
    assert base64.b64encode(digest).decode() == asset.digest
