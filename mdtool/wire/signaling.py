"""Signals by which WebRTC peers find each other, as JSON: checked and bounded."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from mdtool.core.errors import PeerError

MAX_ID_CHARS: Final = 64
MAX_SDP_CHARS: Final = 32_768
MAX_CANDIDATE_CHARS: Final = 4_096

_TYPES: Final = ("OFFER", "ANSWER", "ICE", "JOIN", "LEAVE")
_ROOM: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class SignalError(PeerError):
    """A signal is not valid, or a client may not send it."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A message from one peer to others.

    Attributes
    ----------
    type : str
        OFFER, ANSWER, ICE, JOIN or LEAVE.
    sender_id : str
        Who sends it.
    target_id : str or None
        The only peer that gets it; None means everybody.
    sdp : str or None
        Of an OFFER or ANSWER.
    candidate : str, dict or None
        Of an ICE: text, or the fields of an RTCIceCandidate; None ends the candidates.
    """

    type: str
    sender_id: str
    target_id: str | None = None
    sdp: str | None = None
    candidate: str | dict[str, Any] | None = None


def parse_signal(body: bytes) -> Signal:
    """Return the signal of a JSON object. Optional fields may be absent, null or empty.

    Raises
    ------
    SignalError
        When it is not valid, or exceeds a limit.
    """
    try:
        content = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise SignalError("a signal must be a JSON object") from error
    if not isinstance(content, dict):
        raise SignalError("a signal must be a JSON object")
    kind = content.get("type")
    if kind not in _TYPES:
        raise SignalError(f"type: expects {', '.join(_TYPES)}, not {kind!r:.40}")
    target = content.get("targetId")
    return Signal(
        kind,
        _parse_id("senderId", content.get("senderId")),
        None if target is None or target == "" else _parse_id("targetId", target),
        _parse_sdp(content.get("sdp")) if kind in {"OFFER", "ANSWER"} else None,
        _parse_candidate(content.get("candidate")) if kind == "ICE" else None,
    )


def encode_signal(signal: Signal) -> bytes:
    """Return the JSON object that `parse_signal` reads, without fields that are None."""
    content: dict[str, Any] = {"type": signal.type, "senderId": signal.sender_id}
    if signal.target_id is not None:
        content["targetId"] = signal.target_id
    if signal.sdp is not None:
        content["sdp"] = signal.sdp
    if signal.type == "ICE":
        content["candidate"] = signal.candidate
    return json.dumps(content, separators=(",", ":")).encode()


def parse_room(name: str) -> str:
    """Return the name of a room, 1 to 64 letters, digits, dots, hyphens and underscores.

    Raises
    ------
    SignalError
        When it is not valid.
    """
    if not _ROOM.fullmatch(name):
        raise SignalError("room: expects 1 to 64 letters, digits, dots, hyphens or underscores")
    return name


def _parse_id(name: str, value: object) -> str:
    if not (isinstance(value, str) and 1 <= len(value) <= MAX_ID_CHARS and value.isprintable()):
        raise SignalError(f"{name}: expects 1 to {MAX_ID_CHARS} printable characters")
    return value


def _parse_sdp(value: object) -> str:
    if not (isinstance(value, str) and value):
        raise SignalError("sdp: expects a session description")
    if len(value) > MAX_SDP_CHARS:
        raise SignalError(f"sdp: {len(value):,} characters; at most {MAX_SDP_CHARS:,} are accepted")
    return value


def _parse_candidate(value: object) -> str | dict[str, Any] | None:
    if not (value is None or isinstance(value, str | dict)):
        raise SignalError("candidate: expects text, an object or null")
    if len(json.dumps(value)) > MAX_CANDIDATE_CHARS:
        raise SignalError(f"candidate: more than {MAX_CANDIDATE_CHARS:,} characters")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)
