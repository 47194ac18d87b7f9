"""A client of MongoDB whose requests end: by an answer, an error, a time limit or an interrupt."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

from pymongo import MongoClient, ReadPreference, WriteConcern, errors
from pymongo.database import Database
from pymongo.uri_parser import parse_uri

from mdtool.adapters.stores.errors import (
    StoreError,
    StoreInterruptedError,
    StoreRefusedError,
    StoreUnavailableError,
)
from mdtool.core.addresses import format_address
from mdtool.core.errors import ConfigError

_FORM: Final = "mongodb://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE[?OPTIONS]"
_SRV: Final = "mongodb+srv://"
_DEFAULTS: Final = {
    "appname": "mdtool",
    "connectTimeoutMS": 5_000,
    "serverSelectionTimeoutMS": 5_000,
    "socketTimeoutMS": 30_000,
    "maxIdleTimeMS": 300_000,
}
"""A server that is gone, or silent, is given up before long; a URL may set other values."""
_DURABLE: Final = WriteConcern(w="majority", j=True)

DUPLICATE: Final = 11000
"""A document of the same `_id` is stored."""
_REFUSED: Final = frozenset({13, 18, 8000})
"""Unauthorized, AuthenticationFailed, AtlasError."""
_STEPPED_DOWN: Final = frozenset({91, 189, 10058, 10107, 11600, 11602, 13435, 13436})
"""A server that shuts down or is no primary now; the client looks for the one that is."""
_UNAVAILABLE: Final = _STEPPED_DOWN | frozenset(
    {6, 7, 24, 43, 46, 50, 63, 64, 89, 112, 133, 134, 202, 262, 317, 9001, 11601, 13388, 14031}
)
"""Also: network, time limits, locks, cursors that a server lost, full disks."""

Documents = Database[dict[str, Any]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Location:
    """A database of a server, or of a replica set.

    Attributes
    ----------
    url : str
        Including the password.
    database : str
    options : mapping of str to int or str
        Those that the URL leaves to us.
    address : str
        The name of the store in messages, without secrets.
    """

    url: str
    database: str
    options: dict[str, Any]
    address: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return the location that a URL names.

        Raises
        ------
        ConfigError
            When it is not valid; the message is without the URL, which may contain a password.
        """
        is_looked_up = url.startswith(_SRV)
        try:
            found = parse_uri(_without_lookup(url) if is_looked_up else url, warn=False)
        except (errors.InvalidURI, ValueError):
            # Not even as a cause: it may repeat a part of the URL.
            raise ConfigError(
                f"the URL of the store is not a valid MongoDB URL; give {_FORM}, with special "
                "characters of a password escaped, such as @ as %40"
            ) from None
        except (errors.ConfigurationError, TypeError) as error:
            raise ConfigError(
                f"the URL of the store has an option that is not valid: {error}"
            ) from None
        name = found["database"]
        if not name or "." in name or found["collection"]:
            raise ConfigError(f"the URL of the store names no database; give {_FORM}")
        if is_looked_up:
            host = url.removeprefix(_SRV).partition("/")[0].rpartition("@")[2]
            if ":" in host or "," in host:
                raise ConfigError(f"a URL of a store with {_SRV} names one host, without a port")
        given = {option.lower() for option in found["options"]}
        options = {key: value for key, value in _DEFAULTS.items() if key.lower() not in given}
        places = ",".join(
            format_address(host, port or 27017) if not host.startswith("/") else host
            for host, port in found["nodelist"]
        )
        if is_looked_up:
            return cls(url, name, options, f"mongodb+srv {host}/{name}")
        return cls(url, name, options, f"mongodb {places}/{name}")


class Connection:
    """A client that connects when it is used, and again after a loss.

    Parameters
    ----------
    location : Location
    prepare : callable
        Called with the database before its first use, and after each error.
    """

    def __init__(self, location: Location, prepare: Callable[[Documents], None]) -> None:
        self.location = location
        self._prepare = prepare
        self._client: MongoClient[dict[str, Any]] | None = None
        self._prepared: MongoClient[dict[str, Any]] | None = None
        self._lock = threading.Lock()
        self._reading: _Read | None = None

    @property
    def address(self) -> str:
        """The name of the store in messages, without secrets."""
        return self.location.address

    def run(self, work: Callable[[Documents], T], read: _Read | None = None) -> T:
        """Return the result of work, which is repeated once if the connection proves to be lost.

        Raises
        ------
        StoreError
            When the work failed.
        """
        try:
            return self._attempt(work, read)
        except StoreUnavailableError as error:
            if not _is_loss(error):
                raise
        return self._attempt(work, read)

    def read(self, work: Callable[[Documents], T]) -> T:
        """Return the result of work, which `interrupt` may end."""
        read = _Read(lambda read: self.run(work, read))
        with self._lock:
            self._reading = read
        try:
            read.ended.wait()
        finally:
            with self._lock:
                self._reading = None
        if read.is_interrupted:
            self.close()  # the request may go on, on a connection that nobody else uses then
            raise self._interrupted()
        if read.error is not None:
            raise read.error
        result: T = read.result
        return result

    def interrupt(self) -> None:
        """End what another thread reads at this moment."""
        with self._lock:
            if self._reading is not None:
                self._reading.interrupt()

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            client, self._client, self._prepared = self._client, None, None
        if client is not None:
            client.close()

    def _attempt(self, work: Callable[[Documents], T], read: _Read | None) -> T:
        with self._translated():
            client = self._opened(read)
            database = client.get_database(
                self.location.database,
                write_concern=_DURABLE,
                read_preference=ReadPreference.PRIMARY,
            )
            try:
                if self._prepared is not client:
                    self._prepare(database)
                    self._prepared = client
                return work(database)
            except BaseException:
                self._prepared = None
                raise

    def _opened(self, read: _Read | None) -> MongoClient[dict[str, Any]]:
        client = self._client or self._connect()  # without the lock: it may look up names
        with self._lock:
            if read is None or not read.is_interrupted:
                self._client = client
                return client
        client.close()  # nobody else would
        raise self._interrupted()

    def _connect(self) -> MongoClient[dict[str, Any]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # which a start of a service shows already
            try:
                return MongoClient(self.location.url, **self.location.options)
            except errors.ConfigurationError as error:
                if not self.location.url.startswith(_SRV):
                    raise
                # The URL is valid, so these are the names that it stands for.
                raise StoreUnavailableError(f"{self.address}: {_reason(error)}") from error

    def _interrupted(self) -> StoreInterruptedError:
        return StoreInterruptedError(f"{self.address}: interrupted")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except errors.PyMongoError as error:
            raise store_error(error, self.address) from error
        except UnicodeError as error:
            raise StoreError(f"{self.address}: {error}") from error


class _Read:
    """A request in a thread of its own, which whoever waits for it can leave."""

    def __init__(self, work: Callable[[_Read], Any]) -> None:
        self.ended = threading.Event()
        self.is_interrupted = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._work = work
        threading.Thread(target=self._run, name="mongodb", daemon=True).start()

    def interrupt(self) -> None:
        self.is_interrupted = True
        self.ended.set()

    def _run(self) -> None:
        try:
            self.result = self._work(self)
        except BaseException as error:  # noqa: BLE001 - raised by whoever waits
            self.error = error
        self.ended.set()


def _without_lookup(url: str) -> str:
    """Return a URL that is parsed as one with `mongodb+srv`, but without a request to DNS."""
    place, _, options = url.removeprefix(_SRV).partition("?")
    others = [each for each in options.split("&") if not each.lower().startswith("srv")]
    return f"mongodb://{place}?{'&'.join(others)}"


def _is_loss(error: StoreUnavailableError) -> bool:
    """Return whether another attempt may find another connection, or another primary."""
    cause = error.__cause__
    if isinstance(cause, errors.NetworkTimeout | errors.ServerSelectionTimeoutError):
        return False
    if isinstance(cause, errors.AutoReconnect):
        return True
    return isinstance(cause, errors.PyMongoError) and _code(cause) in _STEPPED_DOWN


def store_error(error: errors.PyMongoError, address: str) -> StoreError:
    """Return the store's error for what pymongo raised."""
    code, reason = _code(error), _reason(error)
    if code in _REFUSED:
        return StoreRefusedError(f"{address}: {reason}")
    if code in _UNAVAILABLE or isinstance(error, errors.ConnectionFailure | errors.WTimeoutError):
        return StoreUnavailableError(f"{address}: {reason}")
    return StoreError(f"{address}: {reason}" + (f" ({code})" if code else ""))


def _code(error: errors.PyMongoError) -> int | None:
    """Return the server's code, of several in one answer the first that is no duplicate."""
    if isinstance(error, errors.BulkWriteError):
        details = error.details
        found = [
            *details.get("writeErrors", ()),
            *details.get("writeConcernErrors", ()),
        ]
        codes = [each.get("code") for each in found if each.get("code") != DUPLICATE]
        return codes[0] if codes else None
    return getattr(error, "code", None)


def _reason(error: errors.PyMongoError) -> str:
    """Return the error alone, in one line, without what a client knows of all servers."""
    details = getattr(error, "details", None) or {}
    text = str(details.get("errmsg") or error)
    if isinstance(error, errors.BulkWriteError):
        found = [*details.get("writeErrors", ()), *details.get("writeConcernErrors", ())]
        text = next((each["errmsg"] for each in found if each.get("code") != DUPLICATE), text)
    for rest in (" (configured timeouts", ", Timeout:", ", full error:"):
        text = text.partition(rest)[0]
    lines = [line.strip() for line in text.splitlines()]
    return next(filter(None, lines), type(error).__name__)
