"""One receiver's connection to the data port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from typing import Final

from mdtool.core.addresses import format_address
from mdtool.core.errors import MdtoolError, PeerError
from mdtool.core.lifecycle import first_error
from mdtool.core.records import Records
from mdtool.core.tcp import notice_loss
from mdtool.services.replay.following import Following, LaggingError
from mdtool.services.replay.reading import reading
from mdtool.services.replay.run import Run
from mdtool.services.replay.runs import Runs
from mdtool.wire.dbn import encode_metadata, encode_records
from mdtool.wire.dbn_session import (
    MAX_REQUEST_BYTES,
    Begin,
    End,
    FromLive,
    FromStart,
    Refused,
    Request,
    RequestReader,
    Resume,
    empty_header,
    encode_begin,
    encode_end,
    encode_refused,
)

log = logging.getLogger(__name__)

_REQUEST_S: Final = 5.0
"""How long the rest of a request may take once its first bytes have come."""
_WRITE_AHEAD_BYTES: Final = 1 << 20


@dataclass(slots=True)
class Progress:
    """What became of one receiver so far.

    Attributes
    ----------
    position : int
        Where in the stream it is: all before it was sent, or left out.
    sent : int
        Records that it was sent, those of snapshots too.
    skipped : int
        Records that it was too slow for, and got a snapshot in place of.
    """

    position: int = 0
    sent: int = 0
    skipped: int = 0


def origin_of(request: Request | None) -> str:
    """Return where a receiver wants its stream to begin, in a word."""
    match request:
        case FromStart():
            return "start"
        case FromLive():
            return "live"
        case Resume(_, position):
            return f"record {position}"
    return "unknown"


class Session:
    """Sends one receiver what it asks for, as fast as it takes it.

    From the start, a receiver that is slow is behind in its own reading of the files. One that
    joined live is handed what comes; when more waits for it than `backlog_bytes`, that is dropped
    and a snapshot of the books takes its place.

    Parameters
    ----------
    runs : Runs
    reader, writer : asyncio.StreamReader, asyncio.StreamWriter
    greeting_s : float
        How long to wait for a request; a receiver that says nothing gets all from the start.
    backlog_bytes : int

    Attributes
    ----------
    name : str
        The receiver's address.
    request : Request or None
        What it has asked for, None as long as that is not known.
    run : Run or None
        What it is sent, None as long as it waits for one.
    progress : Progress
    """

    def __init__(
        self,
        runs: Runs,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        greeting_s: float,
        backlog_bytes: int,
    ) -> None:
        self.name = format_address(*writer.get_extra_info("peername")[:2])
        self.request: Request | None = None
        self.run: Run | None = None
        self.progress = Progress()
        self._runs = runs
        self._reader = reader
        self._writer = writer
        self._greeting_s = greeting_s
        self._backlog_bytes = backlog_bytes
        self._is_plain = False
        notice_loss(writer.get_extra_info("socket"))
        writer.transport.set_write_buffer_limits(_WRITE_AHEAD_BYTES)

    async def serve(self) -> None:
        """Serve the receiver until it has everything, leaves, or asks for what cannot be."""
        try:
            await self._converse()
        except MdtoolError as error:
            log.warning("receiver %s: refused: %s", self.name, error)
            await self._close(Refused(str(error), is_final=True))
        except OSError as error:
            log.info("receiver %s: gone at record %d: %s", self.name, self.progress.position, error)
        except Exception:
            log.exception("receiver %s", self.name)
        finally:
            # asyncio's transports do not stand this once they have closed with a last write.
            with contextlib.suppress(AttributeError):
                self._writer.transport.abort()

    async def refuse(self, reason: str) -> None:
        """Turn the receiver away, for now."""
        log.warning("receiver %s: turned away: %s", self.name, reason)
        with contextlib.suppress(MdtoolError, OSError):
            await self._hear()  # what is left unread would cost it the reason
        await self._close(Refused(reason, is_final=False))

    async def _converse(self) -> None:
        self.request = await self._hear()
        try:
            async with asyncio.TaskGroup() as tasks:
                overhearing = tasks.create_task(self._overhear())
                await self._stream(self.request)
                overhearing.cancel()
        except ExceptionGroup as group:
            raise first_error(group) from group

    async def _hear(self) -> Request:
        """Return what the receiver asks for; one that is silent wants all, and no answers."""
        requests = RequestReader()
        patience_s = self._greeting_s
        with contextlib.suppress(TimeoutError):
            while requests.request is None:
                async with asyncio.timeout(patience_s):
                    data = await self._reader.read(MAX_REQUEST_BYTES)
                if not data:
                    break
                requests.feed(data)
                patience_s = _REQUEST_S
        if requests.request is None and requests.is_begun:
            raise PeerError("an unfinished request")
        self._is_plain = requests.request is None
        return requests.request or FromStart()

    async def _overhear(self) -> None:
        """Wait for what a receiver should not send: it has said all that it may."""
        while data := await self._reader.read(MAX_REQUEST_BYTES):
            if data.strip(b"\r\n"):
                raise PeerError("a request that comes after the stream has begun")

    async def _stream(self, request: Request) -> None:
        if isinstance(request, Resume):
            run = await self._runs.of(request)
        else:
            run = await self._runs.latest()
        self.run = run
        log.info("receiver %s: from %s", self.name, origin_of(request))
        self._writer.write(encode_metadata(run.metadata))
        match request:
            case FromStart():
                await self._send_recorded(run, 0)
            case Resume(_, position):
                await self._send_recorded(run, position)
            case FromLive():
                with run.followed(self._backlog_bytes) as following:
                    await self._send_live(run, following)
        if run.error is not None:
            await self._close(Refused(run.error, is_final=True))
        else:
            await self._close(End(run.identity, self.progress.position))

    async def _send_recorded(self, run: Run, first: int) -> None:
        """Send the recording from record `first` on, no further than the run has come."""
        self._begin(Begin(run.identity, first))
        passed = 0
        async with reading(await asyncio.to_thread(run.reopen)) as arrays:
            async for records in arrays:
                passed += len(records)
                await self._send_reached(run, records[max(first + len(records) - passed, 0) :])
                if await run.reached(passed + 1) == passed:
                    break
        if passed < first:
            raise PeerError(f"this stream has {passed} records only, not {first}")

    async def _send_reached(self, run: Run, records: Records) -> None:
        """Send records, each once the run has reached it."""
        while len(records):
            due = records[: await run.reached(self.progress.position + 1) - self.progress.position]
            await self._send(due)
            self.progress.position += len(due)
            records = records[len(due) :]

    async def _send_live(self, run: Run, following: Following) -> None:
        """Send the books as they are and what comes, again whenever the receiver falls behind."""
        skipped = 0
        while True:
            following.catch_up()
            snapshot = run.snapshot()
            n_records = sum(map(len, snapshot))
            self._begin(Begin(run.identity, run.position, n_records, skipped))
            try:
                for records in snapshot:
                    await self._send(records)
                run.want(self.progress.position)
                while (taken := await following.take()) is not None:
                    await self._send(taken)
                    self.progress.position += len(taken)
                    run.want(self.progress.position)
            except LaggingError:
                skipped = run.position - self.progress.position
                self.progress.skipped += skipped
                log.warning("receiver %s: too slow for %d records", self.name, skipped)
            else:
                return

    def _begin(self, begin: Begin) -> None:
        self.progress.position = begin.position
        if not self._is_plain:
            self._writer.write(encode_begin(begin, time.time_ns()))

    async def _send(self, records: Records) -> None:
        self._writer.write(encode_records(records))
        await self._writer.drain()
        self.progress.sent += len(records)

    async def _close(self, last_word: End | Refused) -> None:
        """Send the last word, if the receiver understands any, and wait until all is sent."""
        with contextlib.suppress(OSError):
            if self.run is None:  # no stream has begun in which anything could be said
                self._writer.write(empty_header())
            if isinstance(last_word, Refused):
                self._writer.write(encode_refused(last_word, time.time_ns()))
            elif not self._is_plain:
                self._writer.write(encode_end(last_word, time.time_ns()))
            self._writer.close()
            await self._writer.wait_closed()
