"""The replies of a STOMP session, frame by frame, without a connection."""

from __future__ import annotations

import pytest

from mdtool.core.errors import MdtoolError
from mdtool.wire.stomp import Frame, StompDecoder, Version, encode
from mdtool.wire.stomp_session import (
    BEAT,
    MAX_SUBSCRIPTIONS,
    MAX_TRANSACTION_BYTES,
    MAX_TRANSACTIONS,
    StompSession,
)


class Recorder:
    """Accepts everything but what is forbidden."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.subscriptions = []

    def connect(self, headers):
        if "token" in headers:
            self.hold()

    def hold(self) -> None:
        """Have the session wait, once a test has set this."""

    def subscribe(self, subscription) -> None:
        self._check(subscription.destination)
        self.subscriptions.append(subscription)
        self.calls.append(("subscribe", subscription.destination))

    def unsubscribe(self, subscription) -> None:
        self.calls.append(("unsubscribe", subscription.destination))

    def send(self, destination, body) -> None:
        self._check(destination)
        self.calls.append(("send", destination, body))

    def _check(self, destination) -> None:
        if destination == "/forbidden":
            raise MdtoolError("forbidden")


class Client:
    """The other end of a session."""

    def __init__(self, version: str | None = None, **settings) -> None:
        self.application = Recorder()
        self.written = bytearray()
        self.session = StompSession(
            self.application, self.written.extend, "s-1", now_s=100.0, **settings
        )
        self._version = Version(version or "1.0")
        if version is not None:
            (connected,) = self.says("CONNECT", {"accept-version": version, "host": "x"})
            assert connected.command == "CONNECTED"
            assert connected.headers["version"] == version

    def says(self, command, headers=None, body=b"", now_s=100.0) -> list[Frame]:
        """The answers to a frame."""
        return self.sends(encode(command, headers, body, self._version), now_s)

    def sends(self, data: bytes, now_s=100.0) -> list[Frame]:
        """The answers to bytes."""
        self.written.clear()
        self.session.receive(data, now_s)
        decoder = StompDecoder()
        decoder.version = self._version
        decoder.feed(bytes(self.written))
        return list(iter(decoder.next_frame, None))

    def error(self, command, headers=None, body=b"") -> str:
        """The message of the ERROR that a frame gets, alone and for good."""
        (answer,) = self.says(command, headers, body)
        assert answer.command == "ERROR"
        assert self.session.is_over
        assert answer.headers["message"] == self.session.error
        assert self.says("SEND", {"destination": "/app/x"}) == []
        return answer.headers["message"]


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [(None, "1.0"), ("1.0", "1.0"), ("1.0,1.1,2.0", "1.1"), ("1.2, 1.1", "1.2"), ("1.2,9", "1.2")],
)
@pytest.mark.parametrize("command", ["CONNECT", "STOMP"])
def test_the_highest_version_of_both_is_agreed_on(command, offered, agreed):
    client = Client()
    (answer,) = client.says(command, {} if offered is None else {"accept-version": offered})
    assert answer.command == "CONNECTED"
    assert answer.headers["version"] == agreed
    assert answer.headers["session"] == "s-1"
    assert answer.headers["server"].startswith("mdtool/")
    assert ("heart-beat" in answer.headers) == (agreed != "1.0")


def test_without_a_common_version_the_supported_ones_are_sent():
    client = Client()
    (answer,) = client.says("CONNECT", {"accept-version": "2.0,2.1"})
    assert answer.command == "ERROR"
    assert answer.headers["version"] == "1.0,1.1,1.2"
    assert answer.body == b"Supported protocol versions are 1.0 1.1 1.2"
    assert client.session.is_over


def test_nothing_comes_before_connect():
    error = Client().error("SEND", {"destination": "/app/x"})
    assert error == "SEND: a session must begin with CONNECT"


def test_a_second_connect_is_an_error():
    assert "already connected" in Client("1.2").error("CONNECT", {"accept-version": "1.2"})


@pytest.mark.parametrize("offer", ["1", "a,b", "1,2,3", "-1,0", "1.5,2", "99999999999,1"])
def test_an_invalid_heart_beat_is_an_error(offer):
    assert "heart-beat" in Client().error("CONNECT", {"accept-version": "1.2", "heart-beat": offer})


@pytest.mark.parametrize("version", list(Version))
def test_messages_carry_the_subscription(version):
    client = Client(version)
    assert client.says("SUBSCRIBE", {"id": "a:1", "destination": "/topic/x"}) == []
    (subscription,) = client.application.subscriptions
    assert subscription.destination == "/topic/x"
    escaped = b"a:1" if version == "1.0" else rb"a\c1"
    assert subscription.head == b"MESSAGE\nsubscription:%s\n" % escaped
    client.says("UNSUBSCRIBE", {"id": "a:1"})
    assert client.application.calls == [("subscribe", "/topic/x"), ("unsubscribe", "/topic/x")]


@pytest.mark.parametrize("id_", [{}, {"id": ""}])
def test_in_1_0_subscriptions_may_go_by_their_destinations(id_):
    client = Client("1.0")
    for destination in ("/topic/x", "/topic/y"):
        assert client.says("SUBSCRIBE", {"destination": destination, **id_}) == []
    assert [each.head for each in client.application.subscriptions] == [b"MESSAGE\n"] * 2
    client.says("UNSUBSCRIBE", {"destination": "/topic/x", **id_})
    assert client.application.calls[-1] == ("unsubscribe", "/topic/x")


@pytest.mark.parametrize("version", ["1.1", "1.2"])
def test_a_subscribe_without_id_is_an_error(version):
    message = Client(version).error("SUBSCRIBE", {"destination": "/topic/x"})
    assert message == "SUBSCRIBE: header id is missing"


@pytest.mark.parametrize(
    ("command", "headers", "message"),
    [
        ("SUBSCRIBE", {"id": "1"}, "SUBSCRIBE: header destination is missing"),
        ("SUBSCRIBE", {"id": "0", "destination": "/y"}, "subscription '0' already exists"),
        ("SUBSCRIBE", {"id": "1", "destination": "/y", "ack": "never"}, "ack: expects auto"),
        ("SUBSCRIBE", {"id": "1", "destination": "/forbidden"}, "SUBSCRIBE: forbidden"),
        ("UNSUBSCRIBE", {}, "header id is missing"),
        ("UNSUBSCRIBE", {"destination": "/topic/x"}, "header id is missing"),
        ("UNSUBSCRIBE", {"id": "7"}, "no subscription '7'"),
        ("SEND", {}, "header destination is missing"),
        ("SEND", {"destination": "/forbidden"}, "SEND: forbidden"),
        ("SEND", {"destination": "/x", "transaction": "t"}, "no transaction 't' is open"),
        ("BEGIN", {}, "header transaction is missing"),
        ("COMMIT", {"transaction": "t"}, "no transaction 't' is open"),
        ("ABORT", {"transaction": "t"}, "no transaction 't' is open"),
        ("ACK", {}, "header id is missing"),
        ("NACK", {"id": "1", "transaction": "t"}, "no transaction 't' is open"),
        ("MESSAGE", {}, "no such command for clients"),
        ("send", {"destination": "/x"}, "no such command for clients"),
        ("\x7fELF", {}, "no such command for clients"),
    ],
)
def test_a_mistake_ends_the_session_with_an_error(command, headers, message):
    client = Client("1.2")
    client.says("SUBSCRIBE", {"id": "0", "destination": "/topic/x"})
    assert message in client.error(command, headers)


@pytest.mark.parametrize("version", list(Version))
def test_a_frame_with_a_receipt_gets_one(version):
    client = Client(version)
    for command, headers in [
        ("SUBSCRIBE", {"id": "0", "destination": "/topic/x"}),
        ("BEGIN", {"transaction": "t"}),
        ("SEND", {"destination": "/app/x", "transaction": "t"}),
        ("ACK", {"id": "m", "message-id": "m", "subscription": "0", "transaction": "t"}),
        ("COMMIT", {"transaction": "t"}),
        ("UNSUBSCRIBE", {"id": "0"}),
        ("DISCONNECT", {}),
    ]:
        answers = client.says(command, {**headers, "receipt": f"of {command}"})
        assert answers == [Frame("RECEIPT", {"receipt-id": f"of {command}"})]
    assert client.session.is_over
    assert client.session.error is None


def test_an_error_names_the_receipt_of_its_frame():
    (answer,) = Client("1.2").says("UNSUBSCRIBE", {"id": "7", "receipt": "r\n1"})
    assert answer.headers["receipt-id"] == "r\n1"


def test_1_0_has_no_nack():
    assert "no such command" in Client("1.0").error("NACK", {"message-id": "1"})


def test_1_1_acknowledges_within_a_subscription():
    headers = {"message-id": "1", "subscription": "0"}
    for command in ("ACK", "NACK"):
        client = Client("1.1")
        client.says("SUBSCRIBE", {"id": "0", "destination": "/topic/x", "ack": "client"})
        assert client.says(command, headers) == []
        assert not client.session.is_over
        client.says("UNSUBSCRIBE", {"id": "0"})
        assert client.error(command, headers) == f"{command}: no subscription '0'"
    for missing in headers:
        rest = {name: value for name, value in headers.items() if name != missing}
        assert f"header {missing} is missing" in Client("1.1").error("ACK", rest)


def test_messages_to_be_acknowledged_have_an_ack_header():
    client = Client("1.2")
    client.says("SUBSCRIBE", {"id": "0", "destination": "/topic/x", "ack": "client"})
    assert client.application.subscriptions[0].head == b"MESSAGE\nsubscription:0\nack:0\n"
    for command in ("ACK", "NACK"):
        assert client.says(command, {"id": "0"}) == []
        assert not client.session.is_over
        assert "header id is missing" in Client("1.2").error(command, {"message-id": "0"})


def test_a_transaction_waits_for_its_commit():
    client = Client("1.2")
    client.says("BEGIN", {"transaction": "a"})
    client.says("BEGIN", {"transaction": "b"})
    client.says("SEND", {"destination": "/app/1", "transaction": "a"}, b"1")
    client.says("SEND", {"destination": "/app/2", "transaction": "b"}, b"2")
    client.says("SEND", {"destination": "/app/3"}, b"3")
    client.says("SEND", {"destination": "/app/4", "transaction": "a"}, b"4")
    client.says("ABORT", {"transaction": "b"})
    client.says("COMMIT", {"transaction": "a"})
    assert [call[2] for call in client.application.calls] == [b"3", b"1", b"4"]
    assert client.says("BEGIN", {"transaction": "a"}) == []


def test_transactions_are_bounded_in_number():
    client = Client("1.2")
    for number in range(MAX_TRANSACTIONS):
        client.says("BEGIN", {"transaction": str(number)})
    assert "is already open" in client.error("BEGIN", {"transaction": "0"})
    client = Client("1.2")
    for number in range(MAX_TRANSACTIONS):
        client.says("BEGIN", {"transaction": str(number)})
    assert "open transactions reached" in client.error("BEGIN", {"transaction": "one more"})


def test_transactions_are_bounded_in_bytes():
    client = Client("1.2")
    headers = {"destination": "/app/x", "transaction": "t"}
    body = bytes(32_768)
    for _ in range(3):  # what is committed does not count any more
        client.says("BEGIN", {"transaction": "t"})
        for _ in range(MAX_TRANSACTION_BYTES // (len(body) + 6 + 256)):
            assert client.says("SEND", headers, body) == []
        client.says("COMMIT", {"transaction": "t"})
    client.says("BEGIN", {"transaction": "t"})
    for _ in range(MAX_TRANSACTION_BYTES // (len(body) + 6 + 256)):
        client.says("SEND", headers, body)
    assert "hold more than" in client.error("SEND", headers, body)


def test_transactions_of_empty_messages_are_bounded_too():
    client = Client("1.2")
    client.says("BEGIN", {"transaction": "t"})
    send = encode("SEND", {"destination": "x", "transaction": "t"})
    (answer,) = client.sends(send * 2_000)
    assert "hold more than" in answer.headers["message"]


@pytest.mark.parametrize(
    ("command", "headers", "name"),
    [
        ("SUBSCRIBE", {"id": "x" * 257, "destination": "/topic/x"}, "id"),
        ("SUBSCRIBE", {"id": "1", "destination": "/topic/x" + " " * 249}, "destination"),
        ("BEGIN", {"transaction": "x" * 257}, "transaction"),
    ],
)
def test_names_are_bounded(command, headers, name):
    error = Client("1.2").error(command, headers)
    assert error == f"{command}: header {name} takes more than 256 characters"


def test_subscriptions_are_bounded():
    client = Client("1.2")
    for number in range(MAX_SUBSCRIPTIONS):
        client.says("SUBSCRIBE", {"id": str(number), "destination": "/topic/x"})
    error = client.error("SUBSCRIBE", {"id": "one more", "destination": "/topic/x"})
    assert f"limit of {MAX_SUBSCRIPTIONS} subscriptions reached" in error


def test_closing_ends_every_subscription():
    client = Client("1.2")
    client.says("SUBSCRIBE", {"id": "0", "destination": "/topic/x"})
    client.says("SUBSCRIBE", {"id": "1", "destination": "/topic/y"})
    client.session.close()
    assert client.application.calls[2:] == [
        ("unsubscribe", "/topic/x"),
        ("unsubscribe", "/topic/y"),
    ]
    assert client.says("SEND", {"destination": "/app/x"}) == []


def test_frames_of_one_piece_are_answered_in_order():
    pieces = [
        encode("CONNECT", {"accept-version": "1.2"}),
        encode("SUBSCRIBE", {"id": "a\rb", "destination": "/x", "receipt": "1"}),
        encode("SEND", {"destination": "/app/x", "receipt": "2"}, b"\0"),
        encode("DISCONNECT", {"receipt": "3"}),
        encode("SEND", {"destination": "/app/too-late"}),
    ]
    client = Client()
    client._version = Version.V1_2
    answers = client.sends(b"\n".join(pieces))
    assert [answer.command for answer in answers] == ["CONNECTED", *["RECEIPT"] * 3]
    assert client.application.calls == [("subscribe", "/x"), ("send", "/app/x", b"\0")]
    assert client.application.subscriptions[0].key == "a\rb"


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\xff\xfe\n\n\0",
        b"SEND\ndestination\n\n\0",
        b"SEND\ndestination:a\\tb\n\n\0",
        b"SEND\ndestination:/x\ncontent-length:x\n\n\0",
        b"SEND\ndestination:/x\ncontent-length:2\n\nabc\0",
        b"x" * 20_000,
        b"SEND\n\n" + b"x" * 70_000,
        b"SEND\ncontent-length:70000\n\n",
    ],
)
def test_garbage_ends_the_session_with_an_error(garbage):
    client = Client("1.2")
    (answer,) = client.sends(garbage)
    assert answer.command == "ERROR"
    assert client.session.is_over


def test_a_client_that_does_not_connect_gets_an_error():
    client = Client(connect_within_s=5.0)
    client.session.receive(b"\n\n", now_s=104.0)
    client.session.tick(105.0)
    assert not client.session.is_over
    client.session.tick(105.1)
    assert client.session.error == "no CONNECT within 5 s"


@pytest.mark.parametrize(
    ("offer", "silent_after_s"), [("2000,0", 20.0), ("30000,0", 60.0), ("0,0", None)]
)
def test_a_client_without_its_heart_beats_gets_an_error(offer, silent_after_s):
    client = Client(heart_beat_s=10.0, connect_within_s=5.0)
    client.says("CONNECT", {"accept-version": "1.2", "heart-beat": offer}, now_s=103.0)
    client.session.receive(b"\n", now_s=110.0)
    if silent_after_s is None:
        client.session.tick(10_000.0)
        assert not client.session.is_over
        return
    client.session.tick(110.0 + silent_after_s)
    assert not client.session.is_over
    client.session.tick(110.1 + silent_after_s)
    assert "no heart-beat within" in client.session.error


@pytest.mark.parametrize(("offer", "promised_s"), [("0,2000", 10.0), ("0,30000", 30.0)])
def test_the_session_beats_at_least_as_often_as_promised(offer, promised_s):
    client = Client(heart_beat_s=10.0)
    client.says("CONNECT", {"accept-version": "1.2", "heart-beat": offer})
    client.written.clear()
    beats = []
    for tick in range(1_000):
        client.session.tick(100.0 + tick / 8)
        if client.written:
            assert bytes(client.written) == BEAT
            client.written.clear()
            beats.append(tick / 8)
    assert all(b - a <= promised_s - 0.25 for a, b in zip([0, *beats], beats, strict=False))
    assert len(beats) <= 2 * 125 / promised_s


def test_heart_beats_can_be_switched_off():
    client = Client(heart_beat_s=0.0)
    client.says("CONNECT", {"accept-version": "1.2", "heart-beat": "1000,1000"})
    client.written.clear()
    client.session.tick(100_000.0)
    assert not client.written
    assert not client.session.is_over


def test_frames_behind_one_that_is_held_wait_for_its_answer():
    client = Client()
    client.application.hold = client.session.hold
    connect = encode("CONNECT", {"accept-version": "1.2", "token": "x"})
    send = encode("SEND", {"destination": "/app/x", "receipt": "1"}, b"one", Version.V1_2)
    assert client.sends(connect + send) == []
    client.session.tick(1_000.0)  # however long that takes
    assert client.sends(send) == []
    assert client.application.calls == []
    client.session.resume(1_000.0)
    decoder = StompDecoder()
    decoder.feed(bytes(client.written))
    answers = [frame.command for frame in iter(decoder.next_frame, None)]
    assert answers == ["CONNECTED", "RECEIPT", "RECEIPT"]
    assert client.application.calls == [("send", "/app/x", b"one")] * 2


def test_a_frame_that_is_held_may_be_rejected_later():
    client = Client()
    client.application.hold = client.session.hold
    send = encode("SEND", {"destination": "/app/x"}, b"one")
    assert client.sends(encode("CONNECT", {"token": "x"}) + send) == []
    error = MdtoolError("no such token")
    client.session.resume(100.0, error)
    assert bytes(client.written).startswith(b"ERROR\nmessage:CONNECT")
    assert client.session.is_over
    assert client.session.cause is error
    assert client.application.calls == []
