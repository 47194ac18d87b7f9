"""Databento's live data, by its official client: records of any schema, as they are sent."""

from __future__ import annotations

import contextvars
import functools
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import IO, Any, Final, NamedTuple, cast

import databento_dbn as dbn

from mdtool.adapters.live.config import SourceConfig
from mdtool.adapters.live.messages import may_pass, rejection
from mdtool.adapters.live.port import Request
from mdtool.core.addresses import parse_address
from mdtool.core.backoff import delays
from mdtool.core.config import did_you_mean
from mdtool.core.dtypes import RTYPE_ERROR, RTYPE_SYMBOL_MAPPING, RTYPE_SYSTEM
from mdtool.core.errors import PeerError, UsageError
from mdtool.wire.source_stream import Failed, Lost, encode_gap

log = logging.getLogger(__name__)

KEY: Final = "DATABENTO_API_KEY"
_MAX_WAITING_BYTES: Final = 64 << 20
"""Bytes that wait for the reader, after which the client is blocked, and so the gateway."""
_JOIN_S: Final = 0.1
_FINAL: Final = frozenset(
    {
        *(dbn.ErrorCode.AUTH_FAILED, dbn.ErrorCode.API_KEY_DEACTIVATED),
        *(dbn.ErrorCode.SYMBOL_RESOLUTION_FAILED, dbn.ErrorCode.INVALID_SUBSCRIPTION),
        dbn.ErrorCode.REPLAY_DATA_AGED_OUT,
    }
)
_OF_THE_LINK: Final = ("Connection to ", "Authentication with ")
"""How the client begins errors before the gateway's answer; others have its words."""
_UNSET: Final = int(dbn.ErrorCode.UNSET)
_OF_SESSIONS: Final = frozenset({RTYPE_ERROR, RTYPE_SYSTEM, RTYPE_SYMBOL_MAPPING})
_RTYPE_AT: Final = 1
_MAX_ENDS_AT_ONE_PLACE: Final = 3
"""Sessions in succession that end with the same record: the next one would, too."""


class DatabentoSource:
    """A source that is the official client's sessions, one after the other.

    The end of a session is the end of the stream if the gateway has closed it in order, as it does
    at the end of a replay; otherwise it is a gap, and another session follows, unless those before
    all ended with the same record.

    Parameters
    ----------
    request : Request

    Raises
    ------
    UsageError
        When no dataset is named, or one that the client does not know and so cannot connect to, or
        when the client is not installed.
    """

    name = "databento"
    keys = (KEY,)

    def __init__(self, request: Request) -> None:
        config = request.config
        self.check(config)
        try:
            import databento
        except ImportError as error:
            raise UsageError(
                "ingest databento: needs the official client; pip install 'mdtool[databento]'"
            ) from error
        if not config.gateway:
            _check_dataset(config.dataset, [str(each) for each in databento.Dataset])
        self.counts: Counter[str] = Counter()
        self._databento = databento
        self._request = request
        self._pipe = _Pipe()
        self._client: Any = None
        self._is_closed = threading.Event()
        if not log.isEnabledFor(logging.DEBUG):  # it tells each of its steps
            logging.getLogger("databento").setLevel(logging.WARNING)
        run = functools.partial(contextvars.copy_context().run, self._run)
        self._thread = threading.Thread(target=run, name=self.name, daemon=True)
        self._thread.start()

    @staticmethod
    def check(config: SourceConfig) -> None:
        """Check what can be checked without the client.

        Raises
        ------
        UsageError
            When no dataset is named.
        """
        if not config.dataset:
            raise UsageError("ingest databento: name its dataset, such as --dataset XNAS.ITCH")

    def read(self, n_bytes: int) -> bytes:
        """As `LiveSource.read`."""
        return self._pipe.read(n_bytes)

    def end(self) -> None:
        """As `LiveSource.end`."""
        self._pipe.close(None)

    def close(self) -> None:
        """As `LiveSource.close`."""
        self._is_closed.set()
        self.end()
        while self._thread.is_alive():  # it may be about to begin another session
            if self._client is not None:
                self._client.terminate()
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._follow()
        except BaseException as raised:  # noqa: BLE001 - it is raised by `read`
            error = raised
        self._pipe.close(error)

    def _follow(self) -> None:
        """Hold sessions until one ends in order, or the source is closed.

        Raises
        ------
        PeerError
            When the gateway rejects the key, the dataset or a subscription, or sessions make no
            progress.
        """
        max_wait_s = self._request.config.max_wait_s
        waits = delays(cap_s=max_wait_s)
        place, n_ends = _Place(), 0
        while not self._is_closed.is_set():
            session, begun_s = _Session(self._pipe, self.counts), time.monotonic()
            try:
                self._hold(session)
            except self._databento.BentoError as error:
                reason = self._hidden(error)
            else:
                return
            if self._is_closed.is_set():
                return
            kind = rejection(reason)
            is_passing = isinstance(kind, Lost)
            is_rejected = not session.is_admitted and not reason.startswith(_OF_THE_LINK)
            if is_rejected and not may_pass(reason):
                hint = f"; check {KEY}" if isinstance(kind, Failed) and kind.is_for_keys else ""
                raise PeerError(f"{self.name}: rejected ({reason}){hint}")
            if session.errors & _FINAL or (_UNSET in session.errors and not is_passing):
                raise PeerError(f"{self.name}: {reason}")
            n_ends = n_ends + 1 if session.place == place else 1
            place = session.place
            if place.n_records and n_ends == _MAX_ENDS_AT_ONE_PLACE:
                raise PeerError(
                    f"{self.name}: {n_ends} sessions in succession ended at the same record, after "
                    f"{place.n_records:,} ({reason}); check what the gateway plays"
                )
            if time.monotonic() - begun_s > max_wait_s:
                waits = delays(cap_s=max_wait_s)
            if session.has_begun:
                self._note_gap(f"{self.name}: {reason}")
            log.warning("%s: %s; connecting again", self.name, reason)
            self._is_closed.wait(next(waits))

    def _hold(self, session: _Session) -> None:
        """Run one session to its end.

        Raises
        ------
        databento.BentoError
            When there is no connection, or it does not end in order.
        PeerError
            When the client does not accept what is requested.
        """
        config = self._request.config
        where: dict[str, Any] = {}
        if config.gateway:
            where["gateway"], where["port"] = parse_address(config.gateway)
        schemas = config.schema.split(",") if config.schema else ["trades"]
        try:
            self._client = client = self._databento.Live(
                key=self._request.keys[KEY], slow_reader_behavior="warn", **where
            )
            client.add_stream(cast("IO[bytes]", session))
            client.add_callback(session.see)
            for schema in schemas:
                symbols = list(self._request.symbols)
                client.subscribe(config.dataset, schema.strip(), symbols, config.stype_in)
                session.is_admitted = True  # the first one authenticates
        except ValueError as error:
            raise PeerError(f"{self.name}: {self._hidden(error)}") from None
        try:
            client.start()
        except ValueError as error:  # the connection was lost before
            raise self._databento.BentoError(str(error)) from error
        log.info("%s: subscribed", self.name)
        client.block_for_close()

    def _hidden(self, error: Exception) -> str:
        """Return the text of an error without the key."""
        return str(error).replace(self._request.keys[KEY], "***")

    def _note_gap(self, reason: str) -> None:
        if self._pipe.write(encode_gap(reason, time.time_ns())):
            self.counts["gaps"] += 1


def _check_dataset(dataset: str, known: Sequence[str]) -> None:
    """Check that a dataset exists: a gateway that is named after another is looked for in vain.

    Raises
    ------
    UsageError
        When the client does not know it.
    """
    if dataset not in known:
        near = did_you_mean(dataset.upper(), known)
        raise UsageError(
            f"--dataset {dataset}: is not known to the installed client; --gateway HOST:PORT "
            f"connects to others{near}"
        )


class _Pipe:
    """Bytes between two threads; a writer waits while there are too many.

    Attributes
    ----------
    has_header : bool
        Whether anything was written: first comes the header of a stream.
    """

    def __init__(self) -> None:
        self.has_header = False
        self._parts: deque[bytes] = deque()
        self._n_bytes = 0
        self._changed = threading.Condition()
        self._is_closed = False
        self._error: BaseException | None = None

    def write(self, data: bytes) -> bool:
        """Write bytes; return False where they are left out, for the pipe is closed."""
        with self._changed:
            while self._n_bytes >= _MAX_WAITING_BYTES and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                return False
            self.has_header = True
            self._parts.append(data)
            self._n_bytes += len(data)
            self._changed.notify_all()
        return True

    def read(self, n_bytes: int) -> bytes:
        with self._changed:
            while not self._parts and not self._is_closed:
                self._changed.wait()
            if not self._parts and self._error is not None:
                raise self._error
            taken: list[bytes] = []
            left = n_bytes
            while self._parts and left:
                part = self._parts.popleft()
                if len(part) > left:
                    self._parts.appendleft(part[left:])
                    part = part[:left]
                taken.append(part)
                left -= len(part)
            self._n_bytes -= n_bytes - left
            self._changed.notify_all()
        return b"".join(taken)

    def close(self, error: BaseException | None) -> None:
        with self._changed:
            if not self._is_closed:
                self._is_closed, self._error = True, error
                self._changed.notify_all()


class _Place(NamedTuple):
    """How far a session has come in what it is sent: records of data, and the last of them."""

    n_records: int = 0
    last: bytes = b""


class _Session:
    """What the client writes to in one session: the header, unless there was one, and records."""

    closed = False
    is_admitted = False
    """Whether the gateway has accepted the key and the dataset."""

    def __init__(self, pipe: _Pipe, counts: Counter[str]) -> None:
        self.has_begun = False
        self.errors: set[int] = set()
        self._pipe = pipe
        self._counts = counts
        self._n_records = 0
        self._last = b""

    @property
    def place(self) -> _Place:
        return _Place(self._n_records, self._last)

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:
        if self.has_begun:
            self._counts["records"] += self._pipe.write(data)
            if data[_RTYPE_AT] not in _OF_SESSIONS:
                self._n_records += 1
                self._last = data
        elif not self._pipe.has_header:
            self._pipe.write(data)
        self.has_begun = True
        return len(data)

    def flush(self) -> None:
        """Do nothing: what is written can be read at once."""

    def see(self, record: object) -> None:
        """Note the code of an error."""
        if isinstance(record, dbn.ErrorMsg):
            self.errors.add(int(cast("int", record.code)))
