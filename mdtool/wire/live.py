"""The control lines of the vendor's live protocol: both sides, without sockets or clocks.

A gateway greets and challenges; a client authenticates, subscribes and starts. What follows the
start is a DBN stream, of which `wire.live_records` makes the session's own records.

    lsg_version=0.8.0                                                   gateway
    cram=TEXT                                                           gateway
    auth=DIGEST-BUCKET|dataset=..|encoding=dbn|ts_out=0|..              client
    success=1|session_id=1                                              gateway
    schema=..|stype_in=..|symbols=A,B|start=..|snapshot=0|id=1|is_last=1    client, any number
    unsubscribe|schema=..|stype_in=..|symbols=A,B|is_last=1             client, any number
    start_session=0                                                     client

Fields come in any order; unknown ones are ignored, and most may be missing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from mdtool.core.errors import PeerError, UsageError
from mdtool.core.units import parse_time

VERSION: Final = "0.8.0"
"""What the greeting says."""
BUCKET_CHARS: Final = 5
"""How many characters of the key's end are sent in the clear."""
CHUNK_SYMBOLS: Final = 500
"""The most symbols of one line that a client sends."""
MAX_LINE_BYTES: Final = 1 << 18
MAX_SYMBOLS: Final = 1 << 17
"""The most symbols of one subscription, and of all that wait for their last chunk."""
ALL_SYMBOLS: Final = "ALL_SYMBOLS"
STYPES: Final = ("raw_symbol", "instrument_id", "parent", "continuous")
DEFAULT_HEARTBEAT_S: Final = 30
MIN_HEARTBEAT_S: Final = 5
MAX_HEARTBEAT_S: Final = 1_800
COMPRESSIONS: Final = ("none", "zstd")
ENCODINGS: Final = ("dbn", "csv", "json")
MAX_DATASET_CHARS: Final = 16
"""As many as a DBN header has room for."""
_CLIENT_CHARS: Final = 256
"""Of a client's name; the rest is not for logs."""
_DIGEST_CHARS: Final = 64
_PROOF: Final = re.compile(
    rf"(?P<digest>[0-9a-fA-F]{{{_DIGEST_CHARS}}})-(?P<bucket>.{{1,{BUCKET_CHARS}}})"
)
"""A shorter key than usual has fewer characters at its end."""
_SHOWN_CHARS: Final = 64
_MAX_DIGITS: Final = 19


class ControlError(PeerError):
    """The other side sent a control line that is not valid; the session ends with the reason."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """The first line of a gateway."""

    version: str = VERSION


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a client hashes together with its key."""

    cram: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """The client is authenticated."""

    session_id: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """The client is not; the connection ends."""

    reason: str


@dataclass(frozen=True, slots=True)
class Authentication:
    """What a client says about itself and the stream that it expects.

    Attributes
    ----------
    digest : str
        64 hexadecimal digits: see `digest_of`.
    bucket : str
        The last characters of the key, at least one.
    dataset, encoding, compression : str
    has_ts_out : bool
        Whether each record ends with the time at which it was sent.
    heartbeat_interval_s : int
    skips : bool
        Whether a client that reads too slowly misses records, rather than being warned alone.
    client : str
        Its name and version.
    has_pretty_px, has_pretty_ts : bool
        Whether prices and times are texts for people, in JSON.
    """

    digest: str
    bucket: str
    dataset: str
    encoding: str = "dbn"
    compression: str = "none"
    has_ts_out: bool = False
    heartbeat_interval_s: int = DEFAULT_HEARTBEAT_S
    skips: bool = True
    client: str = ""
    has_pretty_px: bool = False
    has_pretty_ts: bool = False

    def proves(self, cram: str, key: str) -> bool:
        """Return whether the client has a key."""
        has_key = hmac.compare_digest(self.digest, digest_of(cram, key))
        return has_key and self.bucket == key[-BUCKET_CHARS:]


@dataclass(frozen=True, slots=True)
class Subscribe:
    """A subscription, its chunks joined.

    Attributes
    ----------
    schema, stype_in : str
        Any text: what it names is for the gateway to judge.
    symbols : tuple of str
        Each once, in the client's order, at least one.
    start_ns : int or None
        From when on to replay: 0 for all there is, None for live records alone.
    has_snapshot : bool
    id : int or None
        None where the client numbers nothing.
    """

    schema: str
    stype_in: str
    symbols: tuple[str, ...]
    start_ns: int | None = None
    has_snapshot: bool = False
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """The end of a subscription, or of some of its symbols."""

    schema: str
    stype_in: str
    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """The session begins: metadata and records follow."""


Request: TypeAlias = Authentication | Subscribe | Unsubscribe | Start
Answer: TypeAlias = Greeting | Challenge | Accepted | Rejected


def digest_of(cram: str, key: str) -> str:
    """Return the answer to a challenge."""
    return hashlib.sha256(f"{cram}|{key}".encode()).hexdigest()


def authentication(cram: str, key: str, dataset: str) -> Authentication:
    """Return what a client with a key answers to a challenge, with the defaults of the rest."""
    return Authentication(digest_of(cram, key), key[-BUCKET_CHARS:], dataset)


def encode_answer(answer: Answer) -> bytes:
    """Return the line of a gateway, without any field that clients do not expect."""
    match answer:
        case Greeting(version):
            return f"lsg_version={version}\n".encode()
        case Challenge(cram):
            return f"cram={cram}\n".encode()
        case Accepted(session_id):
            return f"success=1|session_id={session_id}\n".encode()
        case Rejected(reason):
            text = reason.replace("|", " ").replace("=", " ")
            return f"success=0|error={' '.join(text.split())}\n".encode("ascii", "replace")


def encode_request(request: Request) -> bytes:
    """Return the line of a client, of a long subscription its lines."""
    match request:
        case Authentication():
            return _encode_authentication(request)
        case Start():
            return b"start_session=0\n"
        case Subscribe() | Unsubscribe():
            symbols = request.symbols
            chunks = [
                symbols[at : at + CHUNK_SYMBOLS] for at in range(0, len(symbols), CHUNK_SYMBOLS)
            ]
            lines = [
                _encode_chunk(dataclasses.replace(request, symbols=chunk), chunk is chunks[-1])
                for chunk in chunks
            ]
            return b"".join(lines)


def _encode_authentication(request: Authentication) -> bytes:
    fields = {
        "auth": f"{request.digest}-{request.bucket}",
        "dataset": request.dataset,
        "encoding": request.encoding,
        "ts_out": str(int(request.has_ts_out)),
        "compression": request.compression,
        "heartbeat_interval_s": str(request.heartbeat_interval_s),
        "slow_reader_behavior": "skip" if request.skips else "warn",
        "client": request.client,
        "pretty_px": "1" if request.has_pretty_px else "",
        "pretty_ts": "1" if request.has_pretty_ts else "",
    }
    return _line({name: value for name, value in fields.items() if value})


def _encode_chunk(request: Subscribe | Unsubscribe, is_last: bool) -> bytes:
    fields = {
        "schema": request.schema,
        "stype_in": request.stype_in,
        "symbols": ",".join(request.symbols),
    }
    if isinstance(request, Unsubscribe):
        return b"unsubscribe|" + _line({**fields, "is_last": str(int(is_last))})
    if request.start_ns is not None:
        fields["start"] = str(request.start_ns)
    fields["snapshot"] = str(int(request.has_snapshot))
    if request.id is not None:
        fields["id"] = str(request.id)
    return _line({**fields, "is_last": str(int(is_last))})


def _line(fields: dict[str, str]) -> bytes:
    return ("|".join(f"{name}={value}" for name, value in fields.items()) + "\n").encode()


class _Lines:
    """Cuts bytes into lines of ASCII, however they arrive."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> None:
        self.rest += data

    def next(self) -> str | None:
        """Return the next whole line, None where there is none; empty lines do not count."""
        while True:
            line, newline, rest = self.rest.partition(b"\n")
            if len(line) > MAX_LINE_BYTES:
                raise ControlError(f"a control line of more than {MAX_LINE_BYTES:,} bytes")
            if not newline:
                return None
            self.rest = rest
            line = line.removesuffix(b"\r")
            if any(byte < 0x20 or byte > 0x7E for byte in line):
                raise ControlError(f"{_shown(line)} is not a control line: it is not ASCII text")
            if line:
                return line.decode("ascii")


class RequestDecoder:
    """The gateway's side: what a client sends, in pieces of any size.

    Order is checked: first the authentication, then the rest. After an error nothing more is
    decoded.
    """

    def __init__(self) -> None:
        self._lines = _Lines()
        self._is_authenticated = False
        self._open: dict[tuple[type, int | None], Subscribe | Unsubscribe] = {}
        self._error: ControlError | None = None

    def feed(self, data: bytes) -> list[Request]:
        """Return the requests that `data` completes.

        Raises
        ------
        ControlError
            When a line is not valid. Requests before it are returned first: the next call raises.
        """
        requests: list[Request] = []
        try:
            if self._error is not None:
                raise self._error
            self._lines.feed(data)
            while (line := self._lines.next()) is not None:
                if (request := self._decode(line)) is not None:
                    requests.append(request)
        except ControlError as error:
            self._error = error
            if not requests:
                raise
        return requests

    @property
    def error(self) -> ControlError | None:
        """What `feed` has raised, or raises next."""
        return self._error

    def _decode(self, line: str) -> Request | None:
        fields = _fields(line)
        if not self._is_authenticated:
            request = _authentication(fields, line)
            self._is_authenticated = True
            return request
        if "start_session" in fields:
            if self._open:
                raise ControlError("start_session before the last chunk of a subscription")
            return Start()
        if "auth" in fields:
            raise ControlError("authenticated already; a connection authenticates once")
        if "schema" in fields or "symbols" in fields:
            return self._join(fields)
        raise ControlError(f"{_shown(line)} is not a request of the live protocol")

    def _join(self, fields: dict[str, str]) -> Subscribe | Unsubscribe | None:
        """Return a subscription, or its end, once its last chunk has come."""
        chunk = _chunk(fields)
        number = chunk.id if isinstance(chunk, Subscribe) else None
        before = self._open.pop((type(chunk), number), None)
        if before is not None:
            if dataclasses.replace(before, symbols=chunk.symbols) != chunk:
                raise ControlError(f"chunks of subscription {number} differ in more than symbols")
            chunk = dataclasses.replace(chunk, symbols=before.symbols + chunk.symbols)
        waiting = sum(len(each.symbols) for each in self._open.values())
        if waiting + len(chunk.symbols) > MAX_SYMBOLS:
            raise ControlError(f"a subscription of more than {MAX_SYMBOLS:,} symbols")
        if not _flag(fields, "is_last", is_default=True):
            self._open[type(chunk), number] = chunk
            return None
        return dataclasses.replace(chunk, symbols=tuple(dict.fromkeys(chunk.symbols)))


class AnswerDecoder:
    """The client's side: what a gateway sends before the DBN stream, in pieces of any size.

    Attributes
    ----------
    rest : bytes
        What came behind the answer to the authentication: the beginning of the DBN stream.
    """

    def __init__(self) -> None:
        self._lines = _Lines()
        self._is_over = False

    @property
    def rest(self) -> bytes:
        """The bytes that are not decoded."""
        return self._lines.rest

    def feed(self, data: bytes) -> list[Answer]:
        """Return the answers that `data` completes, none behind `Accepted` or `Rejected`.

        Raises
        ------
        ControlError
            When it is no gateway of this protocol.
        """
        answers: list[Answer] = []
        self._lines.feed(data)
        while not self._is_over and (line := self._lines.next()) is not None:
            answer = _answer(_fields(line), line)
            self._is_over = isinstance(answer, Accepted | Rejected)
            answers.append(answer)
        return answers


def _fields(line: str) -> dict[str, str]:
    """Return the fields of a line; a first word without a value is a field, too."""
    fields: dict[str, str] = {}
    for place, part in enumerate(line.rstrip("|").split("|")):
        name, equals, value = part.partition("=")
        name = name.strip()
        if not name or (not equals and place):
            raise ControlError(
                f"{_shown(line)} is not a control line; expected key=value|key=value"
            )
        if name in fields:
            raise ControlError(f"{_shown(line)} has the field {name} twice")
        fields[name] = value.strip()
    return fields


def _authentication(fields: dict[str, str], line: str) -> Authentication:
    if "auth" not in fields:
        raise ControlError(f"{_shown(line)} is not an authentication; expected auth=..|dataset=..")
    proof = _PROOF.fullmatch(fields["auth"])
    if proof is None:
        raise ControlError(
            f"auth={fields['auth'][:_SHOWN_CHARS]}: expected {_DIGEST_CHARS} hexadecimal digits, "
            f"-, and the last {BUCKET_CHARS} characters of the key"
        )
    dataset = fields.get("dataset", "")
    if not dataset:
        raise ControlError("the authentication names no dataset")
    if len(dataset) > MAX_DATASET_CHARS:
        raise ControlError(
            f"dataset={dataset[:_SHOWN_CHARS]}: expected at most {MAX_DATASET_CHARS} characters"
        )
    encoding = _choice(fields, "encoding", ENCODINGS)
    behavior = _choice(fields, "slow_reader_behavior", ("skip", "warn", "drop"))
    interval_s = DEFAULT_HEARTBEAT_S
    if fields.get("heartbeat_interval_s"):
        interval_s = _whole(fields, "heartbeat_interval_s")
        if not MIN_HEARTBEAT_S <= interval_s <= MAX_HEARTBEAT_S:
            raise ControlError(
                f"heartbeat_interval_s={interval_s}: expected {MIN_HEARTBEAT_S} to "
                f"{MAX_HEARTBEAT_S}"
            )
    return Authentication(
        digest=proof["digest"].lower(),
        bucket=proof["bucket"],
        dataset=dataset,
        encoding=encoding,
        compression=_choice(fields, "compression", COMPRESSIONS),
        has_ts_out=_flag(fields, "ts_out", is_default=False),
        heartbeat_interval_s=interval_s,
        skips=behavior != "warn",
        client=fields.get("client", "")[:_CLIENT_CHARS],
        has_pretty_px=_flag(fields, "pretty_px", is_default=False),
        has_pretty_ts=_flag(fields, "pretty_ts", is_default=False),
    )


def _chunk(fields: dict[str, str]) -> Subscribe | Unsubscribe:
    schema, stype_in = fields.get("schema", ""), fields.get("stype_in") or STYPES[0]
    symbols = tuple(name for text in fields.get("symbols", "").split(",") if (name := text.strip()))
    if not schema or not symbols:
        raise ControlError("a subscription without a schema or symbols")
    for name in ("schema", "stype_in", "start"):
        if len(fields.get(name, "")) > _SHOWN_CHARS:
            raise ControlError(f"{name}={fields[name][:_SHOWN_CHARS]}: is too long")
    if "unsubscribe" in fields:
        return Unsubscribe(schema, stype_in, symbols)
    start_ns = None
    if text := fields.get("start"):
        try:
            start_ns = parse_time(text)
        except UsageError as error:
            raise ControlError(f"start={error}") from error
        if start_ns >= 1 << 63:
            raise ControlError(f"start={text[:_SHOWN_CHARS]}: is not a time in nanoseconds")
    return Subscribe(
        schema,
        stype_in,
        symbols,
        start_ns,
        has_snapshot=_flag(fields, "snapshot", is_default=False),
        id=_whole(fields, "id") if fields.get("id") else None,
    )


def _answer(fields: dict[str, str], line: str) -> Answer:
    match fields:
        case {"lsg_version": version}:
            return Greeting(version)
        case {"cram": cram}:
            return Challenge(cram)
        case {"success": "1", "session_id": _}:
            return Accepted(_whole(fields, "session_id"))
        case {"success": "0", **rest}:
            return Rejected(rest.get("error", ""))
    raise ControlError(f"{_shown(line)} is not an answer of the live protocol")


def _choice(fields: dict[str, str], name: str, choices: tuple[str, ...]) -> str:
    text = fields.get(name) or choices[0]
    if text not in choices:
        raise ControlError(f"{name}={text[:_SHOWN_CHARS]}: expected {', '.join(choices)}")
    return text


def _flag(fields: dict[str, str], name: str, *, is_default: bool) -> bool:
    text = fields.get(name) or str(int(is_default))
    if text not in {"0", "1"}:
        raise ControlError(f"{name}={text[:_SHOWN_CHARS]}: expected 0 or 1")
    return text == "1"


def _whole(fields: dict[str, str], name: str) -> int:
    text = fields[name]
    if not text.isdigit() or len(text) > _MAX_DIGITS:
        raise ControlError(f"{name}={text[:_SHOWN_CHARS]}: expected a whole number")
    return int(text)


def _shown(line: str | bytes) -> str:
    text = line if isinstance(line, str) else line[:_SHOWN_CHARS].decode("ascii", "replace")
    return repr(text[:_SHOWN_CHARS])
