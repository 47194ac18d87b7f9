"""What a session is sent: its records in the form that the client asked for, flushed when idle."""

from __future__ import annotations

import time
from typing import Final, NamedTuple, Protocol

import numpy as np
import zstandard

from mdtool.core.records import Records, with_ts_out
from mdtool.services.live_gateway.subscriptions import Mapping
from mdtool.wire.dbn import encode_records
from mdtool.wire.dbn_records import DTYPES
from mdtool.wire.live import Authentication
from mdtool.wire.live_records import (
    Failure,
    Notice,
    encode_failure,
    encode_mapping,
    encode_notice,
    in_version,
    metadata,
)
from mdtool.wire.live_text import LiveText

_LEVEL: Final = 1
"""Of zstd: a gateway compresses while records are due."""
_MAPPINGS_AT_ONCE: Final = 512


class Form(NamedTuple):
    """How a session has its records in DBN."""

    has_ts_out: bool
    version: int


def encoded(records: Records, form: Form) -> memoryview:
    """Return the bytes of records of one rtype, at least one, that are sent now."""
    records = in_version(records, form.version)
    if form.has_ts_out:
        records = with_ts_out(records, np.full(len(records), time.time_ns(), np.uint64))
    return encode_records(records)


class Writer(Protocol):
    """Where bytes go, as `asyncio.StreamWriter`."""

    @property
    def is_ready(self) -> bool:
        """Whether bytes may be written without waiting."""

    def write(self, data: bytes | memoryview) -> None:
        """Write bytes."""

    def write_eof(self) -> None:
        """End the stream."""

    def can_write_eof(self) -> bool:
        """Return whether the other direction stays open then: not with TLS."""

    def close(self) -> None:
        """End both directions, once all is written."""

    async def drain(self) -> None:
        """Wait until the client has read enough."""


def end(writer: Writer) -> None:
    """End a stream in order, once all is written."""
    if writer.can_write_eof():
        writer.write_eof()
    else:
        writer.close()


class Output:
    """The stream of one session: DBN, or lines of text.

    Parameters
    ----------
    writer : Writer
    request : Authentication
        What the client expects.
    version : int
        Of DBN.

    Attributes
    ----------
    latest_s : float
        When something was last written, by the monotonic clock.
    records : int
        How many records were written, those about the session included.
    has_header : bool
    """

    def __init__(self, writer: Writer, request: Authentication, version: int) -> None:
        self.latest_s = time.monotonic()
        self.records = 0
        self.has_header = False
        self._writer = writer
        self._dataset = request.dataset
        self._form = Form(request.has_ts_out, version)
        self._zstd = None
        self._is_flushed = True
        self._text = None
        if request.encoding != "dbn":
            self._text = LiveText(
                request.encoding,
                has_pretty_px=request.has_pretty_px,
                has_pretty_ts=request.has_pretty_ts,
                has_ts_out=request.has_ts_out,
            )
        if request.compression == "zstd":
            self._zstd = zstandard.ZstdCompressor(level=_LEVEL).compressobj()

    @property
    def shared_form(self) -> Form | None:
        """How records are encoded that may be written at once; None where they may not."""
        return self._form if self._text is None and self._writer.is_ready else None

    def header(self) -> None:
        """Write the session's own header, unless there is one already. Text has none."""
        if self.has_header:
            return
        self.has_header = True
        if self._text is not None:
            return
        now_ns = time.time_ns()
        has_ts_out, version = self._form
        own = metadata(self._dataset, now_ns, has_ts_out=has_ts_out, version=version)
        self._write(own)

    def begin(self, header: bytes, form: Form) -> None:
        """Write another header; records about the session are in its form from then on."""
        self.has_header = True
        self._form = form
        self._write(header)

    def data(self, records: Records) -> None:
        """Write records of one rtype, if there are any."""
        if len(records):
            self._send(records)

    def shared(self, data: bytes | memoryview, n_records: int) -> None:
        """Write records that were encoded in the `shared_form`."""
        self.records += n_records
        self._write(data)

    def own(self, data: bytes, n_records: int) -> None:
        """Write bytes of a file, with which so many records end."""
        self.records += n_records
        self._write(data)

    def unchanged(self, records: Records) -> None:
        """Write records as they are."""
        self.records += len(records)
        self._write(encode_records(records))

    def mappings(self, mappings: list[Mapping]) -> None:
        """Write mapping records."""
        now_ns = time.time_ns()
        records = [
            encode_mapping(
                mapping.instrument_id, mapping.stype_in, mapping.symbol, mapping.raw_symbol, now_ns
            )
            for mapping in mappings
        ]
        for at in range(0, len(records), _MAPPINGS_AT_ONCE):
            self._send_own(b"".join(records[at : at + _MAPPINGS_AT_ONCE]))

    def notice(self, notice: Notice, ts_ns: int | None = None) -> None:
        """Write a system record, of now or of another time."""
        self._send_own(encode_notice(notice, time.time_ns() if ts_ns is None else ts_ns))

    def failure(self, failure: Failure, *, is_last: bool = True) -> None:
        """Write an error record, the last one of those that come together or not."""
        self._send_own(encode_failure(failure, time.time_ns(), is_last=is_last))

    async def drain(self) -> None:
        """Wait until the client has read enough of what was written."""
        await self._writer.drain()

    def push(self) -> None:
        """Let the client decompress all that was written."""
        if self._zstd is not None and not self._is_flushed:
            self._is_flushed = True
            self._writer.write(self._zstd.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))

    async def flush(self) -> None:
        """Let the client decompress all that was written, and wait as `drain`."""
        self.push()
        await self._writer.drain()

    async def end(self) -> None:
        """End the stream: the client reads all of it, and then its end."""
        if self._zstd is not None and self.has_header:
            self._writer.write(self._zstd.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH))
        await self._writer.drain()
        end(self._writer)

    def _send_own(self, records: bytes) -> None:
        """Write records about the session, of one rtype."""
        self._send(np.frombuffer(records, DTYPES[records[1]]))

    def _send(self, records: Records) -> None:
        self.records += len(records)
        if self._text is None:
            self._write(encoded(records, self._form))
        else:
            self._write(self._lines(self._text, records))

    def _lines(self, text: LiveText, records: Records) -> bytes:
        if self._form.has_ts_out:
            records = with_ts_out(records, np.full(len(records), time.time_ns(), np.uint64))
        return text.encode(records)

    def _write(self, data: bytes | memoryview) -> None:
        self.latest_s = time.monotonic()
        if self._zstd is None:
            self._writer.write(data)
            return
        self._is_flushed = False
        self._writer.write(self._zstd.compress(data))
