"""Records as CSV and JSON by a kernel, for those who have many of them.

Byte for byte what databento_dbn writes, at several times its speed. What the kernel does for a
layout follows from the layout: the order, names and kinds of its fields.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mdtool.wire import text_kernel as k

Table = npt.NDArray[np.int64]

ROOM_BYTES: Final = 1 << 20
"""Text written at a time: as much as stays in a core's cache."""

_HEADER: Final = ("ts_event", "rtype", "publisher_id", "instrument_id")
"""What JSON has in an object of its own."""
_LEVEL: Final = re.compile(r"(.+)_(\d\d)")
"""A field of a level, and the level's number."""
_MAX_BYTES: Final = {k.UNSIGNED: 20, k.SIGNED: 20, k.PRICE: 23, k.TIME: 32, k.CHARACTER: 8}

_MAX_ESCAPE_BYTES: Final = 6
_OVERRUN_BYTES: Final = 64
"""The most bytes that are stored past the end of a record's text."""


class RecordText:
    """Writes records of any rtype as one of the formats.

    Parameters
    ----------
    is_json : bool
        JSON, an object a line; else rows of CSV.
    is_pretty : bool
        Whether prices become decimals and times ISO-8601.
    types : mapping
        The class of each rtype's records.
    """

    def __init__(self, is_json: bool, is_pretty: bool, types: Mapping[int, Any]) -> None:
        self._is_json = is_json
        self._programs = _Programs(is_json, is_pretty, types)
        self._codes = _codes(is_json)
        self._memo = np.full(k.MEMO_SLOTS * k.MEMO_WORDS, -1, np.int64)
        self._room = np.empty(ROOM_BYTES, np.uint8)

    def encode(
        self,
        words: Table,
        rtypes: Sequence[int],
        endings: Sequence[bytes],
        ending_of: Table,
        left: Callable[[int, bytes], bytes],
    ) -> Iterator[memoryview]:
        """Yield the text of records in pieces, each of which is valid until the next one.

        Parameters
        ----------
        words : int64[...]
            The records, as in a DBN stream.
        rtypes : sequence of int
            Those to write; records of others are left out.
        endings : sequence of bytes
            What lines may end with; the same object as long as it has the same content.
        ending_of : int64[n]
            Which of them each record ends with.
        left : callable
            Returns the text of a record, given its number and bytes, that is not the kernel's to
            write: because of a byte that takes databento_dbn's judgement.
        """
        programs = self._programs
        for rtype in rtypes:
            programs.add(rtype)
        programs.end_with(endings)
        begins = np.empty(len(programs.groups), np.int64)
        before = np.empty(len(programs.table), np.int64)
        wanted = np.full(256, -1, np.int64)
        wanted[rtypes] = programs.of[rtypes]
        state = np.zeros(k.STATE_COLUMNS, np.int64)
        if len(self._room) < programs.most_bytes:
            self._room = np.empty(programs.most_bytes, np.uint8)
        while state[k.S_RECORD] < len(ending_of):
            end = k.encode(
                words,
                ending_of,
                programs.endings,
                wanted,
                programs.table,
                programs.groups,
                programs.fields,
                programs.texts,
                self._codes,
                int(self._is_json),
                begins,
                before,
                self._memo,
                state,
                self._room,
            )
            if end:
                yield self._room[:end].data
            if state[k.S_IS_LEFT]:
                record, word, _ = state.tolist()
                end_word = word + (int(words[word]) & 0xFF) // 2
                yield memoryview(left(record, words[word:end_word].tobytes()))
                state[:] = record + 1, end_word, 0


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a record, and how it is written.

    Attributes
    ----------
    key : str
        Its name, in JSON.
    place : str
        The object of JSON in which it is: "" for the record's own, `hd`, or the number of a level.
    kind : int
        One of the kernel's.
    offset, size : int
        Its bytes in the record.
    is_quoted : bool
        Whether it is an integer that JSON quotes, as every one of 64 bits is.
    """

    key: str
    place: str
    kind: int
    offset: int
    size: int
    is_quoted: bool

    @property
    def columns(self) -> tuple[int, int, int, int, int]:
        """The columns of the kernel's table before those of the text."""
        if self.kind == k.STRING:
            return self.kind, self.offset, 0, self.size, 0
        bits = 8 * self.size
        mask = (1 << bits) - 1 if bits < 64 else -1
        sign = 1 << (bits - 1) if self.kind == k.SIGNED and bits < 64 else 0
        return self.kind, self.offset // 8, 8 * (self.offset % 8), mask, sign

    @property
    def most_bytes(self) -> int:
        """The most bytes that its value takes."""
        return _MAX_BYTES.get(self.kind, self.size * _MAX_ESCAPE_BYTES)


def _fields(record_type: Any, is_pretty: bool) -> list[_Field]:
    """Return the fields of a class of databento_dbn, in the order of its text."""
    dtype = np.dtype(record_type._dtypes)  # noqa: SLF001 - it has no public name
    decimals = record_type._price_fields if is_pretty else ()  # noqa: SLF001
    times = record_type._timestamp_fields if is_pretty else ()  # noqa: SLF001
    fields = []
    for name in record_type._ordered_fields:  # noqa: SLF001
        of, offset = dtype.fields[name][:2]
        key, place = name, "hd" if name in _HEADER else ""
        if level := _LEVEL.fullmatch(name):
            key, place = level.groups()
        if name in decimals:
            kind = k.PRICE
        elif name in times:
            kind = k.TIME
        elif of.kind == "S":
            kind = k.CHARACTER if of.itemsize == 1 else k.STRING
        else:
            kind = k.SIGNED if of.kind == "i" else k.UNSIGNED
        is_quoted = kind == k.STRING or (kind in (k.SIGNED, k.UNSIGNED) and of.itemsize == 8)
        fields.append(_Field(key, place, kind, offset, of.itemsize, is_quoted))
    return fields


def _between(before: _Field | None, after: _Field | None) -> str:
    """Return the JSON text between two fields, before the first or after the last one."""
    text = '"' if before and before.is_quoted else ""
    was, now = (field.place if field else "" for field in (before, after))
    if was not in ("", now):
        text += "}]" if was.isdigit() and not now.isdigit() else "}"
    if after is None:
        return text
    text += "," if before else "{"
    if now not in ("", was):
        opening = {"hd": '"hd":{', "00": '"levels":[{'}
        text += opening.get(now, "{")
    return f'{text}"{after.key}":' + ('"' if after.is_quoted else "")


class _Programs:
    """What the kernel does for some rtypes, as the tables that it reads.

    Attributes
    ----------
    of : int64[256]
        The program of each rtype, -1 for none.
    table, groups, fields, texts, endings : int64 arrays
        As the kernel's parameters; they are there after `end_with`.
    most_bytes : int
        The most that a record takes.
    """

    def __init__(self, is_json: bool, is_pretty: bool, types: Mapping[int, Any]) -> None:
        self.of = np.full(256, -1, np.int64)
        self._is_json = is_json
        self._is_pretty = is_pretty
        self._types = types
        self._table: list[tuple[int, ...]] = []
        self._groups: list[list[int]] = []
        self._fields: list[tuple[int, ...]] = []
        self._texts = _Texts()
        self._endings: Sequence[bytes] | None = None

    def add(self, rtype: int) -> None:
        """Add the program of an rtype, unless it is there."""
        if self.of[rtype] >= 0:
            return
        fields = _fields(self._types[rtype], self._is_pretty)
        first_group = len(self._groups)
        most = _OVERRUN_BYTES
        for before, field in pairwise([None, *fields]):
            assert field is not None
            if before is None or _is_level_edge(before, field):
                self._groups.append([len(self._fields), 0, *_words_of_level(field, fields)])
            text = self._text(before, field)
            self._fields.append((*field.columns, *self._texts.add(text)))
            self._groups[-1][k.G_END] = len(self._fields)
            most += len(text) + field.most_bytes
        tail = self._text(fields[-1], None)
        end_group = len(self._groups)
        self._groups.append([0, 0, 0, 0])  # where the last one's text ends
        self.of[rtype] = len(self._table)
        self._table.append((first_group, end_group, most + len(tail), *self._texts.add(tail)))
        self._endings = None

    def end_with(self, endings: Sequence[bytes]) -> None:
        """Let these be what lines end with, and bring the tables up to date."""
        if endings is self._endings:
            return
        texts = _Texts(self._texts)
        self.endings = np.array([texts.add(ending) for ending in endings], np.int64)
        self.texts = np.array(texts.words, np.int64)
        self.table = np.array(self._table, np.int64)
        self.table[:, k.P_MOST] += max(map(len, endings))
        self.groups = np.array(self._groups, np.int64)
        self.fields = np.array(self._fields, np.int64)
        self.most_bytes = int(self.table[:, k.P_MOST].max())
        self._endings = endings

    def _text(self, before: _Field | None, after: _Field | None) -> bytes:
        if self._is_json:
            return _between(before, after).encode()
        return b"," if before and after else b""


def _is_level_edge(before: _Field, field: _Field) -> bool:
    """Return whether a level begins or ends between two fields."""
    return before.place != field.place and (before.place.isdigit() or field.place.isdigit())


def _words_of_level(first: _Field, fields: Sequence[_Field]) -> tuple[int, int]:
    """Return the words in which a level's fields are, none for the fields of no level."""
    if not first.place.isdigit():
        return 0, 0
    level = [field for field in fields if field.place == first.place]
    end = max(field.offset + field.size for field in level)
    return min(field.offset for field in level) // 8, -(-end // 8)


class _Texts:
    """Texts in whole words, one after the other; `more` are copied first."""

    def __init__(self, more: _Texts | None = None) -> None:
        self.words: list[int] = list(more.words) if more else []

    def add(self, text: bytes) -> tuple[int, int, int]:
        """Add a text; return its first word, how many words, and how many bytes."""
        first = len(self.words)
        padded = text + bytes(-len(text) % 8 if text else 8)
        self.words += struct.unpack(f"<{len(padded) // 8}q", padded)
        return first, len(padded) // 8, len(text)


def _codes(is_json: bool) -> npt.NDArray[np.int64]:
    """Return what each byte is as a character and in a string, as the kernel's parameter."""
    codes = np.zeros((4, 256), np.int64)
    for code in range(256):
        texts = _character(code, is_json), _in_string(code, is_json)
        for row, text in zip((k.C_TEXT, k.C_ESCAPE), texts, strict=True):
            codes[row, code] = int.from_bytes(text, "little")
            codes[row + 1, code] = len(text)
    return codes


def _character(code: int, is_json: bool) -> bytes:
    """Return a character's text: escaped as Rust does, NUL where there is none."""
    if code == 0:
        return b"null" if is_json else b""
    escapes = {9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 39: "\\'", 92: "\\\\"}
    text = escapes.get(code) or (chr(code) if 32 <= code < 127 else f"\\x{code:02x}")
    if is_json:
        return f'"{text}"'.encode()
    return (f'"{text.replace(chr(34), chr(34) * 2)}"' if code in (34, 44) else text).encode()


def _in_string(code: int, is_json: bool) -> bytes:
    """Return a byte of a string; nothing where more of the string has to be seen.

    Those are bytes of characters beyond ASCII, and in CSV what has the string quoted.
    """
    if code >= 128 or code == 0:
        return b""
    if not is_json:
        return b"" if chr(code) in ',"\r\n' else bytes([code])
    escapes = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r"}
    escapes |= {34: '\\"', 47: "\\/", 92: "\\\\"}
    return escapes.get(code, chr(code) if code >= 32 else f"\\u{code:04X}").encode()
