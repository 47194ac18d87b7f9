"""The server's side of one STOMP session: bytes in, calls to an application, bytes out."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from mdtool import __version__
from mdtool.core.errors import MdtoolError
from mdtool.wire.stomp import (
    Frame,
    StompDecoder,
    StompError,
    Version,
    encode,
    encode_headers,
)

MAX_SUBSCRIPTIONS: Final = 100
MAX_TRANSACTIONS: Final = 16
MAX_TRANSACTION_BYTES: Final = 1 << 18
"""The most bytes in the open transactions of a session."""
MAX_NAME_CHARS: Final = 256
"""The longest id, destination or transaction that a session stores."""

BEAT: Final = b"\n"
_SERVER: Final = f"mdtool/{__version__}"
_ACK_MODES: Final = ("auto", "client", "client-individual")
_HEART_BEAT: Final = re.compile(r"(\d{1,9}),(\d{1,9})", re.ASCII)
_HELD_BYTES: Final = 256
"""What a message in a transaction costs besides its body and destination."""
_EARLY: Final = 0.7
"""When a heart-beat is sent, as a share of the agreed interval."""
_TOLERANCE: Final = 2.0
"""The number of heart-beat intervals after which a silent client is disconnected."""


@dataclass(frozen=True, slots=True)
class StompSubscription:
    """A subscription of a client.

    Attributes
    ----------
    key : str
        Its identity within the session: its id; its destination where 1.0 has no id.
    destination : str
        As the client wrote it.
    head : bytes
        The command and headers with which every message of the subscription begins; the rest is
        the same for all subscribers of the destination in this version.
    version : Version
        In which its messages are written.
    """

    key: str
    destination: str
    head: bytes
    version: Version


class Application(Protocol):
    """What a session serves. Each method may reject by raising a MdtoolError."""

    def connect(self, headers: Mapping[str, str]) -> None:
        """Admit the client, by the headers of its CONNECT; may call `StompSession.hold`."""
        ...

    def subscribe(self, subscription: StompSubscription) -> None:
        """Begin to send the messages of a destination."""
        ...

    def unsubscribe(self, subscription: StompSubscription) -> None:
        """End the subscription."""
        ...

    def send(self, destination: str, body: bytes) -> None:
        """Handle a message from the client; may call `StompSession.hold`."""
        ...


class StompSession:
    """Serves a client by STOMP, in the version that both agree on.

    Every acknowledgement mode is accepted. No message is ever sent again, so an ACK or NACK
    changes nothing; it is only checked. What a transaction sends waits for its COMMIT.

    Parameters
    ----------
    application : Application
        Called in the order of the client's frames.
    write : callable
        Writes to the client, whole frames.
    session_id : str
        Sent to the client.
    now_s : float
        The time, in seconds of any clock, when the session begins to wait for CONNECT.
    heart_beat_s : float
        How often the session offers to send heart-beats, and requires them; 0 is never.
    connect_within_s : float
        How long the client may take to connect.

    Attributes
    ----------
    is_over : bool
        Whether the client disconnected or got an ERROR: the connection is then closed, once
        everything is written.
    error : str or None
        The text of that ERROR.
    cause : MdtoolError or None
        What the application rejected, where that led to the ERROR.
    """

    def __init__(
        self,
        application: Application,
        write: Callable[[bytes], None],
        session_id: str,
        now_s: float,
        heart_beat_s: float = 10.0,
        connect_within_s: float = 10.0,
    ) -> None:
        self._application = application
        self._write = write
        self._session_id = session_id
        self._heart_beat_s = heart_beat_s
        self._decoder = StompDecoder()
        self._version: Version | None = None
        self._subscriptions: dict[str, StompSubscription] = {}
        self._transactions: dict[str, list[tuple[str, bytes]]] = {}
        self._held_back_bytes = 0
        self._last_heard_s = self._beat_s = now_s
        self._beat_every_s = 0.0
        self._silence_s = connect_within_s
        self._n_holds = 0
        self._held: tuple[Frame, str | None, Callable[[], None]] | None = None
        self.is_over = False
        self.error: str | None = None
        self.cause: MdtoolError | None = None

    def receive(self, data: bytes, now_s: float) -> None:
        """Handle what the client sent; after the end of the session it is ignored."""
        self._decoder.feed(data)
        try:
            while self._may_handle and (frame := self._decoder.next_frame()) is not None:
                self._handle_frame(frame)
        except StompError as error:
            self.fail(str(error))
        if self._version is not None:
            self._last_heard_s = now_s

    def hold(self) -> None:
        """Handle no further frame, and do not answer this one, before `resume`."""
        self._n_holds += 1

    def resume(self, now_s: float, error: MdtoolError | None = None) -> None:
        """End a `hold`: answer its frame, and handle those behind it.

        Parameters
        ----------
        now_s : float
        error : MdtoolError, optional
            Why the frame is rejected.
        """
        self._n_holds -= 1
        if self.is_over or self._held is None:
            return
        frame, receipt, answer = self._held
        if error is not None:
            self._reject(frame, error, receipt)
        elif not self._n_holds:
            self._held = None
            answer()
            self.receive(b"", now_s)

    @property
    def _may_handle(self) -> bool:
        return not self.is_over and not self._n_holds

    def tick(self, now_s: float) -> None:
        """Send a heart-beat if it is due, and end the session of a client that is silent."""
        if self.is_over:
            return
        is_silent = self._silence_s and now_s - self._last_heard_s > self._silence_s
        if is_silent and not self._n_holds:
            what = "CONNECT" if self._version is None else "heart-beat"
            self.fail(f"no {what} within {self._silence_s:g} s")
        # Also while messages are written, which do not pass through here.
        elif self._beat_every_s and now_s - self._beat_s >= self._beat_every_s:
            self._beat_s = now_s
            self._write(BEAT)

    def fail(self, message: str, receipt: str | None = None) -> None:
        """End the session with an ERROR frame; `receipt` is that of the frame that caused it."""
        headers = {"message": " ".join(message.replace("\0", " ").split())}
        if receipt is not None:
            headers["receipt-id"] = receipt
        self._end_with(headers)

    def close(self) -> None:
        """End the session silently, and its subscriptions."""
        self.is_over = True
        for subscription in self._subscriptions.values():
            self._application.unsubscribe(subscription)
        self._subscriptions.clear()
        self._transactions.clear()

    def _handle_frame(self, frame: Frame) -> None:
        # A CONNECT gets no receipt.
        receipt = None if self._version is None else frame.headers.get("receipt") or None
        try:
            if self._version is None:
                answer = self._connect(frame)
            else:
                self._handle(frame, self._version)
                answer = functools.partial(self._confirm, receipt)
        except MdtoolError as error:
            self._reject(frame, error, receipt)
            return
        if self._n_holds:
            self._held = frame, receipt, answer
        else:
            answer()

    def _reject(self, frame: Frame, error: MdtoolError, receipt: str | None) -> None:
        self.cause = error
        self.fail(f"{frame.command:.20}: {error}", receipt)

    def _confirm(self, receipt: str | None) -> None:
        if receipt is not None:
            self._reply("RECEIPT", {"receipt-id": receipt})

    def _connect(self, frame: Frame) -> Callable[[], None]:
        """Connect the client, and return what answers it."""
        if frame.command not in {"CONNECT", "STOMP"}:
            raise StompError("a session must begin with CONNECT")
        offered = frame.headers.get("accept-version") or Version.V1_0
        accepted = {text.strip() for text in offered.split(",")} & set(Version)
        if not accepted:
            known = list(Version)
            message = f"Supported protocol versions are {' '.join(known)}"
            headers = {"version": ",".join(known), "message": f"no version of {offered!r:.80}"}
            headers["content-type"] = "text/plain"
            return functools.partial(self._end_with, headers, message.encode())
        beats_s = self._agree(frame.headers.get("heart-beat") or "0,0")
        self._application.connect(frame.headers)
        return functools.partial(self._connected, Version(max(accepted)), *beats_s)

    def _connected(self, version: Version, can_s: float, expects_s: float) -> None:
        self._version = self._decoder.version = version
        self._silence_s = can_s * _TOLERANCE
        self._beat_every_s = expects_s * _EARLY
        headers = {"version": version, "session": self._session_id, "server": _SERVER}
        if version is not Version.V1_0:
            beat_ms = round(self._heart_beat_s * 1_000)
            headers["heart-beat"] = f"{beat_ms},{beat_ms}"
        self._reply("CONNECTED", headers)

    def _agree(self, offer: str) -> tuple[float, float]:
        """Return how often the client and the server send heart-beats, in s; 0 is never."""
        match = _HEART_BEAT.fullmatch(offer)
        if match is None:
            raise StompError(f"heart-beat: {offer!r:.40} is not two numbers of milliseconds")
        can_s, expects_s = (int(text) / 1_000 for text in match.groups())
        own_s = self._heart_beat_s
        return (
            max(can_s, own_s) if can_s and own_s else 0.0,
            max(expects_s, own_s) if expects_s and own_s else 0.0,
        )

    def _handle(self, frame: Frame, version: Version) -> None:
        match frame.command:
            case "SUBSCRIBE":
                self._subscribe(frame, version)
            case "UNSUBSCRIBE":
                self._unsubscribe(frame, version)
            case "SEND":
                self._send(frame)
            case "BEGIN":
                self._begin(_kept_header(frame, "transaction"))
            case "COMMIT":
                for destination, body in self._finish(_header(frame, "transaction")):
                    self._application.send(destination, body)
            case "ABORT":
                self._finish(_header(frame, "transaction"))
            case "ACK":
                self._acknowledge(frame, version)
            case "NACK" if version is not Version.V1_0:
                self._acknowledge(frame, version)
            case "DISCONNECT":
                self.is_over = True
            case "CONNECT" | "STOMP":
                raise StompError("the session is already connected")
            case _:
                raise StompError(f"STOMP {version} has no such command for clients")

    def _subscribe(self, frame: Frame, version: Version) -> None:
        destination = _kept_header(frame, "destination")
        name = None
        if frame.headers.get("id") or version is not Version.V1_0:
            name = _kept_header(frame, "id")
        key = destination if name is None else name
        if key in self._subscriptions:
            raise StompError(f"subscription {key!r:.80} already exists")
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise StompError(f"limit of {MAX_SUBSCRIPTIONS} subscriptions reached")
        mode = frame.headers.get("ack") or "auto"
        if mode not in _ACK_MODES:
            raise StompError(f"ack: expects {', '.join(_ACK_MODES)}, not {mode!r:.40}")
        headers = {} if name is None else {"subscription": name}
        if mode != "auto" and version is Version.V1_2:
            headers["ack"] = key
        head = b"MESSAGE\n" + encode_headers(headers, version)
        subscription = StompSubscription(key, destination, head, version)
        self._application.subscribe(subscription)
        self._subscriptions[key] = subscription

    def _unsubscribe(self, frame: Frame, version: Version) -> None:
        is_named = frame.headers.get("id") or version is not Version.V1_0
        key = _header(frame, "id" if is_named else "destination")
        subscription = self._subscriptions.pop(key, None)
        if subscription is None:
            raise StompError(f"no subscription {key!r:.80}")
        self._application.unsubscribe(subscription)

    def _send(self, frame: Frame) -> None:
        destination = _header(frame, "destination")
        if not frame.headers.get("transaction"):
            self._application.send(destination, frame.body)
            return
        held_back = self._open_transaction(frame.headers["transaction"])
        self._held_back_bytes += _held_bytes(destination, frame.body)
        if self._held_back_bytes > MAX_TRANSACTION_BYTES:
            raise StompError(f"open transactions hold more than {MAX_TRANSACTION_BYTES:,} bytes")
        held_back.append((destination, frame.body))

    def _begin(self, name: str) -> None:
        if name in self._transactions:
            raise StompError(f"transaction {name!r:.80} is already open")
        if len(self._transactions) >= MAX_TRANSACTIONS:
            raise StompError(f"limit of {MAX_TRANSACTIONS} open transactions reached")
        self._transactions[name] = []

    def _finish(self, name: str) -> list[tuple[str, bytes]]:
        """End a transaction, and return what it sent."""
        held_back = self._open_transaction(name)
        del self._transactions[name]
        self._held_back_bytes -= sum(_held_bytes(to, body) for to, body in held_back)
        return held_back

    def _open_transaction(self, name: str) -> list[tuple[str, bytes]]:
        if name not in self._transactions:
            raise StompError(f"no transaction {name!r:.80} is open")
        return self._transactions[name]

    def _acknowledge(self, frame: Frame, version: Version) -> None:
        _header(frame, "id" if version is Version.V1_2 else "message-id")
        if version is Version.V1_1 and _header(frame, "subscription") not in self._subscriptions:
            raise StompError(f"no subscription {frame.headers['subscription']!r:.80}")
        if frame.headers.get("transaction"):
            self._open_transaction(frame.headers["transaction"])

    def _reply(self, command: str, headers: dict[str, str], body: bytes = b"") -> None:
        self._write(encode(command, headers, body, self._version or Version.V1_0))

    def _end_with(self, headers: dict[str, str], body: bytes = b"") -> None:
        if not self.is_over:
            self.is_over = True
            self.error = headers["message"]
            self._reply("ERROR", headers, body)


def _header(frame: Frame, name: str) -> str:
    try:
        return frame.headers[name]
    except KeyError:
        raise StompError(f"header {name} is missing") from None


def _kept_header(frame: Frame, name: str) -> str:
    """Return a header that the session keeps."""
    value = _header(frame, name)
    if len(value) > MAX_NAME_CHARS:
        raise StompError(f"header {name} takes more than {MAX_NAME_CHARS} characters")
    return value


def _held_bytes(destination: str, body: bytes) -> int:
    return len(destination) + len(body) + _HELD_BYTES
