"""Alerts as lines of JSON, beside the states of a VWAP feed: `{"alert":{..}}`, as of REST v2."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from mdtool.wire.vwap_lines import LineError, shown

_BEGIN: Final = b'{"alert":'


class AlertLine(NamedTuple):
    """What a line says of an alert, as texts; `end` is None while it is open."""

    symbol: str
    kind: str
    severity: str
    begin: str
    end: str | None
    value: str
    baseline: str


def encode_alert(alert: Mapping[str, Any]) -> bytes:
    """Return an alert as a line, without its end."""
    return _BEGIN + json.dumps(alert).encode() + b"}"


def is_alert(line: bytes) -> bool:
    """Return whether a line has an alert."""
    return line.startswith(_BEGIN)


def decode_alert(line: bytes) -> AlertLine:
    """Return the alert of a line.

    Raises
    ------
    LineError
        When the line is not an alert.
    """
    try:
        fields = json.loads(line)["alert"]
        alert = AlertLine(*(fields[name] for name in AlertLine._fields))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise LineError(f"{shown(line)} is not an alert") from error
    texts = [*alert._replace(end=alert.end or "")]
    if not all(isinstance(text, str) for text in texts):
        raise LineError(f"{shown(line)} is not an alert")
    return alert
