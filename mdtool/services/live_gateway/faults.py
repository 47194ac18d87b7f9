"""Faults on demand, for people who test their clients: what fails, of which session, and when.

A fault is written as its kind and fields, several separated by `;`:

    reset after=1000; stall seconds=20 session=2; duplicate p=0.01 seed=7

| kind | what happens | its own fields |
|---|---|---|
| reset | the connection is reset | |
| fin | the stream ends in order, too early | |
| error | an error record, and the end | code, text |
| stall | nothing is sent for a time, no heartbeat either | seconds |
| skip | a slow-reader warning, records that are left out, and error 7 | records |
| slow | the link is slow from there on | bytes_per_s |
| duplicate | records are sent twice | records |
| damage | records have an unknown type and other bytes; lines of text, other characters | records |
| late-auth | the answer to the authentication is late | seconds |
| wrong-auth | a valid authentication is rejected | text |

`session=N` chooses one, by default it is of all. A fault happens after so many data records
(`after=N`), with the first record of a time (`at=TIME`), or before each record with a probability
(`p=`, `seed=`); without any of these at once. The same seed fails the same records.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from mdtool.core.errors import MdtoolError, UsageError
from mdtool.core.records import Records, index_timestamps
from mdtool.core.units import parse_time
from mdtool.services.live_gateway.output import Form, Output
from mdtool.wire.dbn_records import SCHEMAS
from mdtool.wire.live import Authentication
from mdtool.wire.live_records import skipped, slow_reading

log = logging.getLogger(__name__)

RESET: Final = "reset"
FIN: Final = "fin"
ERROR: Final = "error"
STALL: Final = "stall"
SKIP: Final = "skip"
SLOW: Final = "slow"
DUPLICATE: Final = "duplicate"
DAMAGE: Final = "damage"
LATE_AUTH: Final = "late-auth"
WRONG_AUTH: Final = "wrong-auth"
_OWN: Final[dict[str, tuple[str, ...]]] = {
    RESET: (),
    FIN: (),
    ERROR: ("code", "text"),
    STALL: ("seconds",),
    SKIP: ("records",),
    SLOW: ("bytes_per_s",),
    DUPLICATE: ("records",),
    DAMAGE: ("records",),
    LATE_AUTH: ("seconds",),
    WRONG_AUTH: ("text",),
}
_AUTH: Final = frozenset({LATE_AUTH, WRONG_AUTH})
ENDS: Final = frozenset({RESET, FIN, ERROR})
"""Those that end the session."""
_OF_THE_LINK: Final = ENDS | {STALL, SLOW}
"""Those that need no record."""
_WHEN: Final = ("after", "at", "p", "seed")
_SLICE_S: Final = 0.02
"""How often a slow link sends."""
_DAMAGED_RTYPE: Final = 0xFE
_HEADER_BYTES: Final = 16
_LINE_END: Final = ord("\n")
_NOISE: Final = np.frombuffer(b"#$%&*;<=>?@^_`|~", np.uint8)
"""Characters of damaged text; no value of JSON begins with one."""
_MAX_RECORDS: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes
    ----------
    kind : str
    session : int or None
        The number of its session; None for all.
    after : int or None
        The number of data records before it.
    at_ns : int or None
        The time of the first record that it comes before.
    probability : float or None
        That it comes before a record.
    seed : int
    seconds, records, bytes_per_s, code, text
        Its own.
    """

    kind: str
    session: int | None = None
    after: int | None = None
    at_ns: int | None = None
    probability: float | None = None
    seed: int = 0
    seconds: float = 30.0
    records: int = 1
    bytes_per_s: int = 10_000
    code: int = 6
    text: str = "a fault on demand"

    @property
    def is_immediate(self) -> bool:
        """Whether it happens at once: it does not say when, and is not of the authentication."""
        whens = (self.after, self.at_ns, self.probability)
        return self.kind not in _AUTH and all(when is None for when in whens)

    def check_bare(self, *, is_running: bool) -> None:
        """Raise UsageError if it cannot happen where files are sent as they are, uncounted.

        Before sessions run, nothing happens at once: what does not say when is due at a record.
        """
        is_of_link = is_running and self.is_immediate and self.kind in _OF_THE_LINK
        if self.kind not in _AUTH and not is_of_link:
            raise UsageError(
                f"fault {self.kind}: is due at a record, which --bare does not count; give "
                "late-auth or wrong-auth, or one that happens at once by the control API"
            )


class FaultError(MdtoolError):
    """A fault ends the session.

    Attributes
    ----------
    fault : Fault
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"a fault on demand: {fault.kind}")
        self.fault = fault


def parse_faults(text: str) -> list[Fault]:
    """Return the faults that a text describes.

    Raises
    ------
    UsageError
        When it does not.
    """
    return [_parse(part.strip()) for part in text.split(";") if part.strip()]


def _parse(text: str) -> Fault:
    kind, *words = text.split()
    if kind not in _OWN:
        raise UsageError(f"fault {kind}: does not exist; choose from {', '.join(_OWN)}")
    allowed = ("session", *(() if kind in _AUTH else _WHEN), *_OWN[kind])
    given: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if "text" in given and not (equals and name in allowed):
            given["text"] += f" {word}"  # a text goes on to the next field
            continue
        if not equals or name not in allowed:
            raise UsageError(f"fault {kind}: {word} is not one of {', '.join(allowed)}")
        given["at_ns" if name == "at" else "probability" if name == "p" else name] = _value(
            kind, name, value
        )
    return Fault(kind, **given)


def _value(kind: str, name: str, value: str) -> Any:
    if name == "text":
        return value
    if name == "at":
        return parse_time(value)
    try:
        number = float(value) if name in {"p", "seconds"} else int(value)
    except ValueError:
        number = math.nan
    limits = {"p": (0, 1), "code": (1, 254), "records": (1, _MAX_RECORDS), "bytes_per_s": (1, 1e12)}
    low, high = limits.get(name, (0, 1e12))
    if not low <= number <= high:
        raise UsageError(f"fault {kind}: {name}={value} is not a number from {low} to {high:g}")
    return number


@dataclass(slots=True)
class _Armed:
    """A fault that is yet to happen, and before which data record it does."""

    fault: Fault
    random: random.Random
    place: int | None

    @classmethod
    def of(cls, fault: Fault, session: int, n_records: int) -> _Armed:
        armed = cls(fault, random.Random(f"{fault.seed}/{session}"), None)  # noqa: S311 - no secret
        armed.next(n_records + (fault.after or 0))
        return armed

    def next(self, from_place: int) -> None:
        """Find the next place, from one on."""
        probability = self.fault.probability
        if probability is not None:
            self.place = None if not probability else from_place + self._gap(probability)
        elif self.fault.at_ns is None:
            self.place = from_place

    def _gap(self, probability: float) -> int:
        if probability >= 1:
            return 0
        return int(math.log(1 - self.random.random()) / math.log(1 - probability))


class SessionFaults:
    """The faults of one session, as its records come.

    Parameters
    ----------
    session : int
        Its number.
    faults : sequence of Fault
        Of all sessions.
    """

    def __init__(self, session: int, faults: Sequence[Fault] = ()) -> None:
        self._session = session
        self._armed: list[_Armed] = []
        self._n_records = 0
        self._login: deque[Fault] = deque()
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """Add one, if it is this session's; `after` counts from here."""
        if fault.session not in {None, self._session}:
            return
        if fault.kind in _AUTH:
            self._login.append(fault)
        else:
            self._armed.append(_Armed.of(fault, self._session, self._n_records))

    def login(self) -> Iterator[Fault]:
        """Yield the faults of the authentication, once."""
        while self._login:
            yield self._login.popleft()

    @property
    def are_armed(self) -> bool:
        """Whether one is yet to happen."""
        return bool(self._armed)

    def passed(self, n_records: int) -> None:
        """Count data records that no fault is before."""
        self._n_records += n_records

    def parts(self, records: Records) -> Iterator[tuple[Records, Fault | None]]:
        """Cut the next data records where faults are: yield a part, and what comes behind it."""
        if not self._armed:
            self.passed(len(records))
            yield records, None
            return
        begin = self._n_records
        self._n_records += len(records)
        sent = 0
        while (due := self._due(records, begin)) is not None:
            place = max(due.place or 0, begin) - begin
            due.next(begin + place + 1)
            if due.fault.probability is None:
                self._armed.remove(due)
            yield records[sent:place], due.fault
            sent = place
        yield records[sent:], None

    def _due(self, records: Records, begin: int) -> _Armed | None:
        """Return the first fault within records."""
        for armed in self._armed:
            if armed.fault.at_ns is not None and armed.place is None:
                late = np.flatnonzero(index_timestamps(records) >= armed.fault.at_ns)
                armed.place = begin + int(late[0]) if len(late) else None
        ready = [
            armed
            for armed in self._armed
            if armed.place is not None and armed.place < begin + len(records)
        ]
        return min(ready, key=lambda armed: armed.place or 0, default=None)


def damaged(records: Records, seed: int) -> Records:
    """Return copies of records whose type is unknown, with other bytes behind their headers."""
    spoilt = records.copy()
    rows = spoilt.view(np.uint8).reshape(len(records), records.itemsize)
    noise = np.random.default_rng(seed).integers(0, 256, rows.shape, np.uint8)
    rows[:, _HEADER_BYTES:] = noise[:, _HEADER_BYTES:]
    rows[:, 1] = _DAMAGED_RTYPE
    return spoilt


def damaged_lines(data: bytes, n_records: int, seed: int) -> bytes:
    """Return lines of text of which the last ones, each a record, have other characters."""
    lines = data.splitlines(keepends=True)
    whole, spoilt = b"".join(lines[:-n_records]), b"".join(lines[-n_records:])
    text = np.frombuffer(spoilt, np.uint8)
    noise = np.random.default_rng(seed).choice(_NOISE, len(text))
    return whole + np.where(text == _LINE_END, text, noise).tobytes()


@dataclass(slots=True)
class Link:
    """The way to a client, which may stall or be slow.

    Parameters
    ----------
    writer : asyncio.StreamWriter
    """

    writer: asyncio.StreamWriter
    bytes_per_s: int | None = None
    stall_s: float = 0.0
    _held: bytearray = field(default_factory=bytearray)

    @property
    def is_ready(self) -> bool:
        """As of `Writer`."""
        if self.stall_s or self.bytes_per_s is not None:
            return False
        transport = self.writer.transport
        return transport.get_write_buffer_size() <= transport.get_write_buffer_limits()[1]

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes, or hold them until `drain`."""
        if self.stall_s or self.bytes_per_s is not None:
            self._held += data
        else:
            self.writer.write(data)

    def write_eof(self) -> None:
        """As of `Writer`."""
        self.writer.write_eof()

    def can_write_eof(self) -> bool:
        """As of `Writer`."""
        return self.writer.can_write_eof()

    def close(self) -> None:
        """As of `Writer`."""
        self.writer.close()

    async def drain(self) -> None:
        """Wait until what is held is sent, and the client has read enough."""
        if self.stall_s:
            await self.writer.drain()
            await asyncio.sleep(self.stall_s)
            self.stall_s = 0.0
        while self._held:
            n_bytes = len(self._held)
            if self.bytes_per_s is not None:
                n_bytes = max(1, int(self.bytes_per_s * _SLICE_S))
            self.writer.write(bytes(self._held[:n_bytes]))
            del self._held[:n_bytes]
            if self.bytes_per_s is not None:
                await asyncio.sleep(n_bytes / self.bytes_per_s)
        await self.writer.drain()


class FaultyOutput(Output):
    """The stream of a session whose faults happen.

    Parameters
    ----------
    link : Link
    request : Authentication
    version : int
        Of DBN.
    faults : SessionFaults
    """

    def __init__(
        self, link: Link, request: Authentication, version: int, faults: SessionFaults
    ) -> None:
        super().__init__(link, request, version)
        self._link = link
        self._faults = faults
        self._left = {SKIP: 0, DUPLICATE: 0, DAMAGE: 0}
        self._skipped = 0

    @property
    def shared_form(self) -> Form | None:
        """As of `Output`; None while a fault is yet to happen."""
        is_faulty = self._faults.are_armed or any(self._left.values())
        return None if is_faulty else super().shared_form

    def shared(self, data: bytes | memoryview, n_records: int) -> None:
        """As `Output.shared`."""
        self._faults.passed(n_records)
        super().shared(data, n_records)

    def data(self, records: Records) -> None:
        """As `Output.data`, with faults.

        Raises
        ------
        FaultError
            When one of them ends the session.
        """
        for part, fault in self._faults.parts(records):
            self._alter(part)
            if fault is not None:
                self.fail(fault, records)

    def fail(self, fault: Fault, records: Records | None = None) -> None:
        """Have a fault happen now, before some of records; raises as `data`."""
        log.info("fault: %s", fault)
        match fault.kind:
            case _ if fault.kind in ENDS:
                raise FaultError(fault)
            case "stall":
                self._link.stall_s = fault.seconds
            case "slow":
                self._link.bytes_per_s = fault.bytes_per_s
            case kind:
                if kind == SKIP and records is not None:
                    self.notice(slow_reading(SCHEMAS[int(records["rtype"][0])]))
                self._left[kind] += fault.records

    def _alter(self, records: Records) -> None:
        """Send records of which the first may be skipped, sent twice, or damaged."""
        while len(records):
            kind = next((each for each, left in self._left.items() if left), None)
            if kind is None:
                super().data(records)
                return
            some, records = records[: self._left[kind]], records[self._left[kind] :]
            self._left[kind] -= len(some)
            if kind == DUPLICATE:
                super().data(np.repeat(some, 2))
            elif kind == DAMAGE:
                self._damage(some)
            else:
                self._skipped += len(some)
                if not self._left[SKIP]:
                    self.failure(skipped(self._skipped))
                    self._skipped = 0

    def _damage(self, records: Records) -> None:
        """Send records damaged: the length of each, or the end of its line, stays."""
        if self._text is None:
            self.unchanged(damaged(records, self.records))
            return
        data = damaged_lines(self._lines(self._text, records), len(records), self.records)
        self.own(data, len(records))
