"""What an issuer publishes about itself, and how it is requested.

References
----------
OpenID Connect Discovery 1.0, section 4.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from mdtool.core.errors import PeerError

_DISCOVERY: Final = "/.well-known/openid-configuration"
_FETCH_S: Final = 5.0
_MAX_BYTES: Final = 1 << 20


class RejectedError(PeerError):
    """The issuer answers that a request is not valid."""


async def discover(issuer: str, *names: str) -> Mapping[str, str]:
    """Return URLs that an issuer publishes, by their names in its document.

    Raises
    ------
    PeerError
        When the document cannot be read, is another issuer's, or has no valid URL of a name.
    """
    url = issuer.rstrip("/") + _DISCOVERY
    found = await fetch(url)
    if found.get("issuer") != issuer:
        raise PeerError(f"{url}: its issuer is {found.get('issuer')!r:.200}, not this one")
    is_secure = urlsplit(issuer).scheme == "https"
    for name in names:
        value = found.get(name, "")
        if not isinstance(value, str) or (is_secure and urlsplit(value).scheme != "https"):
            raise PeerError(f"{url}: its {name} is not valid")
    return {name: found.get(name, "") for name in names}


async def fetch(url: str, form: Mapping[str, str] | None = None) -> Mapping[str, Any]:
    """Return the object at a URL, or with which it answers a form.

    No redirect is followed, and little is read.

    Raises
    ------
    RejectedError
        When the form is not accepted.
    PeerError
        When there is no such answer within a few seconds.
    """
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=_FETCH_S)
    method = "GET" if form is None else "POST"
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, url, data=form, allow_redirects=False) as response,
        ):
            if form is not None and response.status in {400, 401, 403}:
                raise RejectedError(f"{url}: status {response.status}")
            if response.status != 200:
                raise PeerError(f"{url}: status {response.status}")
            body = await response.content.read(_MAX_BYTES)
            while len(body) < _MAX_BYTES and (more := await response.content.read(_MAX_BYTES)):
                body += more
            content = json.loads(body)
    except TimeoutError as error:
        raise PeerError(f"{url}: no answer within {_FETCH_S:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise PeerError(f"{url}: {error or type(error).__name__}") from error
    except (ValueError, RecursionError) as error:
        raise PeerError(f"{url}: not JSON") from error
    if not isinstance(content, dict):
        raise PeerError(f"{url}: not a JSON object")
    return content
