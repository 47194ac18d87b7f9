"""What a live stream says of records that it lost: warnings among its control records.

Texts and codes are those of the vendor's gateway. Records of DBN v1 have a text alone.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final, NamedTuple

from mdtool.core.dtypes import RTYPE_ERROR, RTYPE_SYSTEM
from mdtool.core.records import Records

SLOW_READER: Final = "slow_reader"
SKIPPED_RECORDS: Final = "skipped_records"
ERROR_RECORD: Final = "error_record"
KINDS: Final = (SLOW_READER, SKIPPED_RECORDS, ERROR_RECORD)
"""The reader was too slow, records were left out because of that, and any other error."""

_SLOW_READER_CODE: Final = 2
_SKIPPED_CODE: Final = 7
_SLOW: Final = re.compile(r"\bslow\b|not keeping pace|^warning", re.IGNORECASE)
_SKIPPED: Final = re.compile(r"\bskipp", re.IGNORECASE)
_NO_CODE: Final = 255
_ANSWER: Final = "stream="
"""Begins what a sender of mdtool says, of records that it left out too: a snapshot follows."""
_PASSED_ON: Final = re.compile(rf"warning=({'|'.join(KINDS)})\|(.*)", re.DOTALL)
"""What a sender of mdtool passes on of the stream that it sends."""


class StreamWarning(NamedTuple):
    """A warning of a stream.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    text : str
    code : int or None
        None where the stream's version of DBN has none.
    ts_ns : int
        When it was sent.
    """

    kind: str
    text: str
    code: int | None
    ts_ns: int

    def __str__(self) -> str:
        return self.text if self.code is None else f"{self.text} (code {self.code})"

    @property
    def passed_on(self) -> str:
        """The text of a system record by which a sender passes it on."""
        return f"warning={self.kind}|{self}"


def counts_of(kinds: Counter[str]) -> dict[str, int]:
    """Return how many warnings there are of every kind."""
    return {kind: kinds[kind] for kind in KINDS}


def is_passed_on(text: str) -> bool:
    """Return whether the text of a system record is a warning that a sender passes on."""
    return _PASSED_ON.fullmatch(text) is not None


def warnings_in(records: Records) -> list[StreamWarning]:
    """Return the warnings among records of one rtype; none unless it is system or error.

    Acknowledgements, heartbeats and ends of intervals are no warnings.
    """
    if not len(records):
        return []
    rtype = int(records["rtype"][0])
    if rtype not in {RTYPE_ERROR, RTYPE_SYSTEM}:
        return []
    field = "err" if rtype == RTYPE_ERROR else "msg"
    found = []
    for record in records:
        text = record[field].decode("utf-8", "replace")
        code = int(record["code"])
        kind: str | None
        if rtype == RTYPE_SYSTEM and (passed_on := _PASSED_ON.fullmatch(text)):
            kind, text = passed_on.groups()
        else:
            kind = _kind(rtype, code, text)
        if kind is not None:
            ts_ns = int(record["ts_event"].view("i8"))
            found.append(StreamWarning(kind, text, None if code == _NO_CODE else code, ts_ns))
    return found


def _kind(rtype: int, code: int, text: str) -> str | None:
    if rtype == RTYPE_ERROR:
        is_skipped = code == _SKIPPED_CODE or _SKIPPED.search(text)
        return SKIPPED_RECORDS if is_skipped else ERROR_RECORD
    if text.startswith(_ANSWER):
        return None
    if code == _SLOW_READER_CODE or _SLOW.search(text):
        return SLOW_READER
    return SKIPPED_RECORDS if _SKIPPED.search(text) else None
