"""Third-party files of the pages: pinned npm packages, from a CDN or from a folder.

A page names a library of `LIBRARIES` and puts its tags where its HTML has `TAGS_MARK`. Browsers
reject a file from another site whose SHA-384 is not the pinned one.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from aiohttp import web

from mdtool.core.errors import ConfigError
from mdtool.services.gateway.protocols import Paths
from mdtool.services.http.answers import failure

log = logging.getLogger(__name__)

PATH: Final = "/assets/{path:.+}"
TAGS_MARK: Final = "<!-- assets -->"
_CONTENT_TYPES: Final = {"css": "text/css", "js": "text/javascript"}


class Asset(NamedTuple):
    """A file of an npm package, and its SHA-384 in base64."""

    package: str
    version: str
    file: str
    digest: str


LIBRARIES: Final[Mapping[str, tuple[Asset, ...]]] = {
    # GraphiQL 4 and React 18 are the last versions with files that browsers load without a bundler.
    "graphiql": (
        Asset(
            *("graphiql", "4.1.2", "graphiql.min.css"),
            "1el1QShFBnnXTx9x/Cprg82hZWKt0ry29OAYIXt05swbi0KcZDFoj0CWguMpopJr",
        ),
        Asset(
            *("react", "18.3.1", "umd/react.production.min.js"),
            "DGyLxAyjq0f9SPpVevD6IgztCFlnMF6oW/XQGmfe+IsZ8TqEiDrcHkMLKI6fiB/Z",
        ),
        Asset(
            *("react-dom", "18.3.1", "umd/react-dom.production.min.js"),
            "gTGxhz21lVGYNMcdJOyq01Edg0jhn/c22nsx0kyqP0TxaV5WVdsSH1fSDUf5YJj1",
        ),
        Asset(
            *("graphiql", "4.1.2", "graphiql.min.js"),
            "9XdHu7ajgGJziD4J1zNBKQ842Q/+zZfDv+ib1eMhZWBH6hPAs806x+Jbcf0yNO6B",
        ),
        Asset(
            *("graphql-ws", "6.4.2", "umd/graphql-ws.min.js"),
            "mxvR4Mzbsb6QVx/9xI2gtQikQA6m8zMDBFnu3l//4/ROsWt7y2sUGWd+/tYQqDm7",
        ),
    ),
    "lightweight-charts": (
        Asset(
            *("lightweight-charts", "5.2.1", "dist/lightweight-charts.standalone.production.js"),
            "KkYqTZlM13Zya6fVUF3IGCBOQ1ehFeJVVgxaVvD/0MebineF9EI8Jkd3NnWNChqN",
        ),
    ),
    "sockjs": (
        Asset(
            *("sockjs-client", "1.6.1", "dist/sockjs.min.js"),
            "svdnwiXBL+Js+yUneJSRFy24NgGiOfDM/vkQl/vCeVrcbYD6yW8EwPr1FnxTEZsR",
        ),
    ),
    "swagger-ui": (
        Asset(
            *("swagger-ui-dist", "5.35.0", "swagger-ui.css"),
            "WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I",
        ),
        Asset(
            *("swagger-ui-dist", "5.35.0", "swagger-ui-bundle.js"),
            "gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9",
        ),
    ),
}
"""The files of each library, in the order in which a page loads them."""


class Assets:
    """The pinned files, from one source.

    Parameters
    ----------
    source : str
        The URL of a site that serves npm packages as `PACKAGE@VERSION/FILE`, or a folder
        `node_modules`, whose files are read now and served below `/assets/`.
    libraries : mapping, optional
        The files of each library.

    Attributes
    ----------
    origin : str
        Where browsers load the files from, as a Content-Security-Policy names it.

    Raises
    ------
    ConfigError
        When the folder lacks one of the files.
    """

    def __init__(self, source: str, libraries: Mapping[str, tuple[Asset, ...]] = LIBRARIES) -> None:
        self._libraries = libraries
        self._files: dict[str, bytes] = {}
        url = urlsplit(source)
        self._base = source.rstrip("/") if url.scheme in {"http", "https"} else ""
        if self._base:
            self.origin = f"{url.scheme}://{url.netloc}"
        else:
            self.origin = "'self'"
            self._read(source)

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {("GET", PATH): self.file}

    def tags(self, library: str) -> str:
        """Return the HTML that loads a library, before the page's own deferred scripts run."""
        return "\n  ".join(map(self._tag, self._libraries[library]))

    async def file(self, request: web.Request) -> web.Response:
        """`GET /assets/{path}`: a file from the folder."""
        path = request.match_info["path"]
        if path not in self._files:
            return failure(404, "not_found", "there is no such asset")
        return web.Response(
            body=self._files[path],
            content_type=_CONTENT_TYPES[path.rpartition(".")[2]],
            charset="utf-8",
            headers={"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"},
        )

    def _tag(self, asset: Asset) -> str:
        if self._base:
            url = escape(f"{self._base}/{asset.package}@{asset.version}/{asset.file}")
            check = f' integrity="sha384-{asset.digest}" crossorigin="anonymous"'
        else:
            url, check = f"assets/{asset.package}/{asset.file}", ""
        if asset.file.endswith(".css"):
            return f'<link rel="stylesheet" href="{url}"{check}>'
        return f'<script defer src="{url}"{check}></script>'

    def _read(self, folder: str) -> None:
        """Read every file; one that is not the pinned one is served, with a warning."""
        assets = [asset for library in self._libraries.values() for asset in library]
        for asset in assets:
            path = Path(folder, asset.package, asset.file)
            try:
                content = path.read_bytes()
            except OSError as error:
                packages = dict.fromkeys(f"{each.package}@{each.version}" for each in assets)
                raise ConfigError(
                    f"assets: cannot read {path}; npm install {' '.join(packages)} makes a folder "
                    "node_modules with all the files"
                ) from error
            digest = base64.b64encode(hashlib.sha384(content).digest()).decode()
            if digest != asset.digest:
                log.warning(
                    "assets: %s is not the file of %s@%s; the page may not work",
                    *(path, asset.package, asset.version),
                )
            self._files[f"{asset.package}/{asset.file}"] = content
