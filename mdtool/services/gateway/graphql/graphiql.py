"""`GET /graphiql`: GraphiQL, a page on which to write and run operations, and its assets."""

from __future__ import annotations

from html import escape
from importlib import resources
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from aiohttp import web

from mdtool.core.errors import ConfigError
from mdtool.services.http.answers import failure


class _Asset(NamedTuple):
    """A file of an npm package, and its SHA-384, by which browsers know it from any other."""

    package: str
    version: str
    path: str
    digest: str


# GraphiQL 4 and React 18 are the last whose packages have files that browsers take as they are.
_ASSETS: Final = (
    _Asset(
        *("graphiql", "4.1.2", "graphiql.min.css"),
        "1el1QShFBnnXTx9x/Cprg82hZWKt0ry29OAYIXt05swbi0KcZDFoj0CWguMpopJr",
    ),
    _Asset(
        *("react", "18.3.1", "umd/react.production.min.js"),
        "DGyLxAyjq0f9SPpVevD6IgztCFlnMF6oW/XQGmfe+IsZ8TqEiDrcHkMLKI6fiB/Z",
    ),
    _Asset(
        *("react-dom", "18.3.1", "umd/react-dom.production.min.js"),
        "gTGxhz21lVGYNMcdJOyq01Edg0jhn/c22nsx0kyqP0TxaV5WVdsSH1fSDUf5YJj1",
    ),
    _Asset(
        *("graphiql", "4.1.2", "graphiql.min.js"),
        "9XdHu7ajgGJziD4J1zNBKQ842Q/+zZfDv+ib1eMhZWBH6hPAs806x+Jbcf0yNO6B",
    ),
    _Asset(
        *("graphql-ws", "6.4.2", "umd/graphql-ws.min.js"),
        "mxvR4Mzbsb6QVx/9xI2gtQikQA6m8zMDBFnu3l//4/ROsWt7y2sUGWd+/tYQqDm7",
    ),
)
_PLACE: Final = "<!-- assets -->"
_FOLDER: Final = "/graphiql/assets"
_CONTENT_TYPES: Final = {"css": "text/css", "js": "text/javascript"}


class GraphiQL:
    """The page.

    Parameters
    ----------
    assets : str
        Where its files come from: the URL of a site that has npm packages as
        `PACKAGE@VERSION/PATH`, or a folder that has them as `PACKAGE/PATH`.

    Raises
    ------
    ConfigError
        When a file is missing in the folder.
    """

    def __init__(self, assets: str) -> None:
        self._files: dict[str, bytes] = {}
        address = urlsplit(assets)
        if address.scheme in {"http", "https"}:
            source = f" {address.scheme}://{address.netloc}"
            folder = assets.rstrip("/")
            urls = [
                escape(f"{folder}/{each.package}@{each.version}/{each.path}") for each in _ASSETS
            ]
        else:
            source = ""
            self._files = {each.path.rpartition("/")[2]: _read(assets, each) for each in _ASSETS}
            urls = [f"{_FOLDER}/{name}" for name in self._files]
        page = resources.files("mdtool.services.gateway").joinpath("static/graphiql.html")
        tags = "\n  ".join(map(_tag, urls, _ASSETS))
        self._page = page.read_text("utf-8").replace(_PLACE, tags)
        self._headers = {
            "Cache-Control": "no-cache",
            "Content-Security-Policy": (
                f"default-src 'none'; script-src 'self'{source}; "
                f"style-src 'self' 'unsafe-inline'{source}; font-src 'self' data:{source}; "
                "img-src 'self' data:; connect-src 'self' ws: wss:; "
                "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            ),
            "X-Content-Type-Options": "nosniff",
        }

    async def page(self, _request: web.Request) -> web.Response:
        """`GET /graphiql`."""
        return web.Response(text=self._page, content_type="text/html", headers=self._headers)

    async def asset(self, request: web.Request) -> web.Response:
        """`GET /graphiql/assets/{name}`: a file out of the folder."""
        name = request.match_info["name"]
        if name not in self._files:
            return failure(404, "not_found", "there is no such asset")
        content_type = _CONTENT_TYPES[name.rpartition(".")[2]]
        return web.Response(
            body=self._files[name],
            content_type=content_type,
            charset="utf-8",
            headers={"X-Content-Type-Options": "nosniff"},
        )


def _tag(url: str, asset: _Asset) -> str:
    known = f' integrity="sha384-{asset.digest}" crossorigin="anonymous"'
    if url.startswith(_FOLDER):
        known = ""
    if asset.path.endswith(".css"):
        return f'<link rel="stylesheet" href="{url}"{known}>'
    return f'<script defer src="{url}"{known}></script>'


def _read(folder: str, asset: _Asset) -> bytes:
    path = Path(folder, asset.package, asset.path)
    try:
        return path.read_bytes()
    except OSError as error:
        packages = " ".join(f"{each.package}@{each.version}" for each in _ASSETS[1:])
        raise ConfigError(
            f"graphiql_assets: cannot read {path}; npm install {packages} makes a folder "
            "node_modules that has it"
        ) from error
