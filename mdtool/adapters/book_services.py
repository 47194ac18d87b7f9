"""A client of the services of order books: the sender and the receiver, over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import aiohttp

from mdtool.adapters.identity.config import bearer_header, client_token
from mdtool.core.addresses import parse_address
from mdtool.core.errors import PeerError
from mdtool.core.tls import http_options

_LOOK_S: Final = 2.0


class ServiceUnavailableError(PeerError):
    """A service is unavailable, or its connection is lost."""


class ServiceTimeoutError(PeerError):
    """A service did not answer in time."""


class UnexpectedAnswerError(PeerError):
    """Another program answers at a service's address."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a service: its HTTP status, and its JSON object."""

    status: int
    content: dict[str, Any]


class BookService:
    """A client of one service.

    Parameters
    ----------
    name : str
        Its name in errors.
    section : str
        The service that it is, by whose settings of TLS it is requested.
    address : str
        Its HOST:PORT. It need not be up yet.
    session : aiohttp.ClientSession
        Owned by the caller, and without its own timeout.
    timeout_s : float
        How long an answer, or the beginning of a stream, may take.

    Attributes
    ----------
    lost_because : str or None
        Why it is unavailable, as far as `watch` knows.

    Raises
    ------
    UsageError
        When the address is not valid.
    """

    def __init__(
        self,
        name: str,
        section: str,
        address: str,
        session: aiohttp.ClientSession,
        timeout_s: float,
    ) -> None:
        parse_address(address)
        self.name = name
        self.address = address
        self.lost_because: str | None = "not connected yet"
        self._tls = http_options(section, address)
        self._headers = bearer_header(client_token(None))
        self._session = session
        self._timeout_s = timeout_s

    async def watch(self) -> NoReturn:
        """Look every few seconds whether it is available, until cancelled."""
        while True:
            try:
                await self.request("GET", "/livez")
                self.lost_because = None
            except PeerError as error:
                self.lost_because = str(error)
            await asyncio.sleep(_LOOK_S)

    async def request(
        self, method: str, path: str, query: Mapping[str, str] | None = None
    ) -> Answer:
        """Return the answer to a request, whatever its status.

        Raises
        ------
        ServiceUnavailableError, ServiceTimeoutError, UnexpectedAnswerError
        """
        with self._wrapped():
            async with (
                asyncio.timeout(self._timeout_s),
                self._session.request(
                    method,
                    self._url(path),
                    params=query,
                    headers=self._headers,
                    **self._tls,
                ) as response,
            ):
                content = json.loads(await response.read())
            if not isinstance(content, dict):
                raise self._unexpected()
            return Answer(response.status, content)

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield a response once its headers have come; the caller reads its body.

        The body may pause for long, since replays are paced.

        Raises
        ------
        ServiceUnavailableError, ServiceTimeoutError, UnexpectedAnswerError
            Also for errors within the block.
        """
        with self._wrapped():
            async with asyncio.timeout(self._timeout_s):
                response = await self._session.get(
                    self._url(path), params=query, headers=self._headers, **self._tls
                )
            async with response:
                yield response

    def _url(self, path: str) -> str:
        return f"{'https' if self._tls else 'http'}://{self.address}{path}"

    @contextlib.contextmanager
    def _wrapped(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise ServiceTimeoutError(f"{self._who} did not answer in time") from error
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            raise ServiceUnavailableError(f"{self._who} is unavailable: {error}") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise self._unexpected() from error

    def _unexpected(self) -> UnexpectedAnswerError:
        return UnexpectedAnswerError(
            f"{self._who} is another program: its answer is not a service's; check the address"
        )

    @property
    def _who(self) -> str:
        return f"{self.name} {self.address}"
