"""The messages between a sender of a DBN stream and its receivers.

The sender's half is a DBN stream. A receiver that sends nothing gets the stream's records from the
first one on, and nothing else. One that opens with a line gets answers among the records, as
system and error records, in the manner of Databento's live gateway:

    from=start                      from the first record on
    from=live                       from now on: first the order books as they are, then what comes
    from=next                       the same once a stream is under way, after one that has ended
    stream=IDENTITY|position=N      from the record that N of the stream's records come before

A line `auth=TOKEN` comes before it where the sender authenticates its receivers.

    system, SUBSCRIPTION_ACK        `stream=IDENTITY|position=N|snapshot=K`: the next K records are
                                    a snapshot, and what follows begins at position N
    system, SLOW_READER_WARNING     the same again, with `|skipped=M`: so many records were left out
    system, REPLAY_COMPLETED        `stream=IDENTITY|position=N`: the stream has ended
    error                           the reason why the session ends

Of a live stream's own system and error records, which would be mistaken for answers, the session
leaves out all but the warnings. They are records of the stream at their place among the others:

    system, without a code          `warning=KIND|TEXT`

Records before the first answer belong to no session: the request of a receiver came when its stream
had begun already. A position counts the stream's own records. Equal identities mean equal records
at equal positions, also of a sender that was restarted in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import databento_dbn as dbn
import numpy as np

from mdtool.core.dtypes import RTYPE_ERROR, RTYPE_SYSTEM
from mdtool.core.errors import PeerError
from mdtool.core.records import Records
from mdtool.core.stream_warnings import is_passed_on, warnings_in
from mdtool.core.tls import TLS_TO_PLAIN, is_tls
from mdtool.core.units import UNDEF_TIMESTAMP
from mdtool.wire.dbn import DbnDecoder, encode_metadata
from mdtool.wire.dbn_metadata import make_metadata
from mdtool.wire.dbn_records import DTYPES

MAX_REQUEST_BYTES: Final = 256
MAX_AUTH_BYTES: Final = 1 << 15
"""The longest line with a token."""
MAX_STRAY_BYTES: Final = 1 << 26
"""The most bytes that a connection can hold from before the request arrived."""
BEGIN_CODE: Final = int(dbn.SystemCode.SUBSCRIPTION_ACK)
BEGIN_AGAIN_CODE: Final = int(dbn.SystemCode.SLOW_READER_WARNING)
END_CODE: Final = int(dbn.SystemCode.REPLAY_COMPLETED)
"""The codes of the system records that begin, begin again and end a session."""
_OWN_RTYPES: Final = frozenset({RTYPE_ERROR, RTYPE_SYSTEM})
"""The record types of the session's own messages."""

_BROKEN: Final = dbn.ErrorCode(dbn.ErrorCode.INTERNAL_ERROR)
_BUSY: Final = dbn.ErrorCode(dbn.ErrorCode.CONNECTION_LIMIT_EXCEEDED)
_NO_DATASET: Final = "NONE"
_MAX_TEXT_CHARS: Final = 300
_MAX_DIGITS: Final = 19
_AUTH: Final = b"auth="


@dataclass(frozen=True, slots=True)
class FromStart:
    """A request for the stream from its first record on."""


@dataclass(frozen=True, slots=True)
class FromLive:
    """A request for a snapshot of the books, then live records."""


@dataclass(frozen=True, slots=True)
class FromNext:
    """The same, but of the next stream if this one has ended."""


@dataclass(frozen=True, slots=True)
class Resume:
    """A request to resume a stream after its first `position` records."""

    stream: str
    position: int


Request: TypeAlias = FromStart | FromLive | FromNext | Resume


@dataclass(frozen=True, slots=True)
class Begin:
    """What follows: `snapshot` records, then the stream's from `position` on.

    `skipped` records before `position` were left out, for the receiver was too slow.
    """

    stream: str
    position: int
    snapshot: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Data:
    """Records of one rtype: the stream's, or of a snapshot; `position` is where they end."""

    records: Records
    position: int


@dataclass(frozen=True, slots=True)
class End:
    """The stream has ended, after so many records."""

    stream: str
    position: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The sender ends the session, with its reason; `is_final` if a retry would not help."""

    reason: str
    is_final: bool


Message: TypeAlias = Begin | Data | End | Refused


def passed_on(records: Records) -> Records:
    """Return what a session sends of a stream's records of one rtype, perhaps none of them.

    Receivers must tell a recorded session's messages from those of their own: its warnings become
    system records without a code, the rest is left out.
    """
    if int(records["rtype"][0]) not in _OWN_RTYPES:
        return records
    data = b"".join(
        bytes(
            dbn.SystemMsg(ts_event=warning.ts_ns & UNDEF_TIMESTAMP, msg=_ascii(warning.passed_on))
        )
        for warning in warnings_in(records)
    )
    return np.frombuffer(data, DTYPES[RTYPE_SYSTEM])


def encode_request(request: Request, token: str = "") -> bytes:
    """Return the line with which a receiver opens, after one with its token if it has one."""
    return (_AUTH + token.encode() + b"\n" if token else b"") + _encode_request(request)


def _encode_request(request: Request) -> bytes:
    match request:
        case FromStart():
            return b"from=start\n"
        case FromLive():
            return b"from=live\n"
        case FromNext():
            return b"from=next\n"
        case Resume(stream, position):
            return f"stream={stream}|position={position}\n".encode()


def empty_header() -> bytes:
    """Return the header of a stream that has no records but a refusal."""
    return encode_metadata(make_metadata(_NO_DATASET, None, 0))


def encode_begin(begin: Begin, ts_ns: int) -> bytes:
    """Return the record before a snapshot and the stream's records."""
    text = f"stream={begin.stream}|position={begin.position}|snapshot={begin.snapshot}"
    if begin.skipped:
        return _system(f"{text}|skipped={begin.skipped}", BEGIN_AGAIN_CODE, ts_ns)
    return _system(text, BEGIN_CODE, ts_ns)


def encode_end(end: End, ts_ns: int) -> bytes:
    """Return the record that ends a stream."""
    return _system(f"stream={end.stream}|position={end.position}", END_CODE, ts_ns)


def encode_refused(refused: Refused, ts_ns: int) -> bytes:
    """Return the record with the reason why a session ends."""
    code = _BROKEN if refused.is_final else _BUSY
    return bytes(dbn.ErrorMsg(ts_event=ts_ns, err=_ascii(refused.reason), is_last=True, code=code))


class SpeaksTlsError(PeerError):
    """The receiver speaks TLS to a port that does not."""


class RequestReader:
    """Reads the lines with which a receiver opens, however they are cut into pieces.

    Attributes
    ----------
    request : Request or None
        None until the whole line has arrived. Empty lines before it do not count.
    token : str or None
        The token that came before the request, which nobody has checked yet.
    """

    def __init__(self) -> None:
        self.request: Request | None = None
        self.token: str | None = None
        self._line = b""

    @property
    def is_begun(self) -> bool:
        """Whether a part of the request has arrived."""
        return bool(self._line)

    def feed(self, data: bytes) -> None:
        """Take what the receiver has sent.

        Raises
        ------
        SpeaksTlsError
            When it is TLS.
        PeerError
            When it is not exactly one request.
        """
        if self.request is not None:
            raise PeerError("more than one request; a connection takes one")
        if not self._line and is_tls(data):
            raise SpeaksTlsError(TLS_TO_PLAIN)
        self._line = (self._line + data).lstrip(b"\r\n")
        line, newline, rest = self._line.partition(b"\n")
        if line.startswith(_AUTH) and self.token is None:
            if len(line) > MAX_AUTH_BYTES:
                raise PeerError(f"a token of more than {MAX_AUTH_BYTES:,} bytes")
            if not newline:
                return
            self.token = line.removeprefix(_AUTH).strip().decode("ascii", "replace")
            self._line = rest.lstrip(b"\r\n")
            line, newline, rest = self._line.partition(b"\n")
        if len(line) > MAX_REQUEST_BYTES:
            raise PeerError(f"a request of more than {MAX_REQUEST_BYTES} bytes")
        if newline:
            self.request = _parse_request(line.rstrip(b"\r"))
            if rest.strip(b"\r\n"):
                raise PeerError("more than one request; a connection takes one")


class SessionDecoder:
    """The receiver's side of a session that it opened with a request.

    Parameters
    ----------
    source : str
        What errors call the sender.

    Attributes
    ----------
    metadata : databento_dbn.Metadata or None
        None until the stream's header has come.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._decoder = DbnDecoder(source)
        self._begin: Begin | None = None
        self._position = 0
        self._snapshot_left = 0
        self._stray_bytes = 0

    @property
    def metadata(self) -> dbn.Metadata | None:
        """The stream's header, None until it has arrived."""
        return self._decoder.metadata

    def feed(self, data: bytes | bytearray | memoryview) -> list[Message]:
        """Return what `data` completes, in order.

        Raises
        ------
        InputError
            When it is not a DBN stream, or contains garbage; everything before was returned.
        PeerError
            When it is the stream of no sender that answers requests.
        """
        messages: list[Message] = []
        for run in self._decoder.feed(data):
            rtype = int(run["rtype"][0])
            if rtype == RTYPE_SYSTEM:
                for at, record in enumerate(run):
                    if is_passed_on(_text(record["msg"])):
                        messages += self._place(run[at : at + 1])
                    else:
                        messages.append(self._answer(record))
            elif rtype == RTYPE_ERROR:
                messages += [_refused(record) for record in run]
            else:
                messages += self._place(run)
        return messages

    def finish(self) -> None:
        """Check that the connection may end here, or be resumed.

        Raises
        ------
        PeerError
            When there were records, but none of the requested ones.
        """
        if self._begin is None and self._stray_bytes:
            raise self._no_sender()

    def _answer(self, record: np.void) -> Begin | End:
        code = int(record["code"])
        fields = self._fields(record["msg"])
        try:
            stream, position = fields["stream"], _whole(fields["position"])
            if code == END_CODE:
                return End(stream, position)
            if code in {BEGIN_CODE, BEGIN_AGAIN_CODE}:
                self._begin = Begin(
                    stream, position, _whole(fields["snapshot"]), _whole(fields.get("skipped", "0"))
                )
                self._position, self._snapshot_left = position, self._begin.snapshot
                return self._begin
        except (KeyError, ValueError) as error:
            raise self._no_sender() from error
        raise self._no_sender()

    def _place(self, run: Records) -> list[Data]:
        if self._begin is None:
            self._stray_bytes += run.nbytes
            if self._stray_bytes > MAX_STRAY_BYTES:
                raise self._no_sender()
            return []
        of_snapshot, rest = run[: self._snapshot_left], run[self._snapshot_left :]
        self._snapshot_left -= len(of_snapshot)
        placed = [Data(of_snapshot, self._position)] if len(of_snapshot) else []
        if len(rest):
            self._position += len(rest)
            placed.append(Data(rest, self._position))
        return placed

    def _fields(self, text: bytes) -> dict[str, str]:
        try:
            return _split(text)
        except ValueError as error:
            raise self._no_sender() from error

    def _no_sender(self) -> PeerError:
        return PeerError(f"{self._source}: does not answer as a sender of mdtool replay-dbn does")


def _parse_request(line: bytes) -> Request:
    try:
        match _split(line):
            case {"from": "start", **rest} if not rest:
                return FromStart()
            case {"from": "live", **rest} if not rest:
                return FromLive()
            case {"from": "next", **rest} if not rest:
                return FromNext()
            case {"stream": stream, "position": position, **rest} if not rest:
                return Resume(stream, _whole(position))
    except ValueError:
        pass
    known = "from=start, from=live, from=next or stream=IDENTITY|position=N"
    # Where a token was expected, one may have come in another form.
    said = "a line with a token" if b"auth" in line.lower() else repr(line[:64])
    raise PeerError(f"{said} is not a request; expected {known}")


def _split(text: bytes) -> dict[str, str]:
    """Return the fields of `key=value|key=value`.

    Raises
    ------
    ValueError
        When it is not of that form.
    """
    pairs = [part.partition("=") for part in text.decode("ascii").split("|")]
    fields = {key: value for key, equals, value in pairs if equals and key and value}
    if len(fields) != len(pairs):
        raise ValueError(text)
    return fields


def _whole(text: str) -> int:
    if not text.isdigit() or len(text) > _MAX_DIGITS:
        raise ValueError(text)
    return int(text)


def _system(text: str, code: int, ts_ns: int) -> bytes:
    return bytes(dbn.SystemMsg(ts_event=ts_ns, msg=text, code=dbn.SystemCode(code)))


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()[:_MAX_TEXT_CHARS]


def _text(data: bytes) -> str:
    return data.decode("ascii", "replace")


def _refused(record: np.void) -> Refused:
    reason = _text(record["err"])
    return Refused(reason, int(record["code"]) != int(_BUSY))
