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
from mdtool.services.replay.reading import ForwardReader, reading
from mdtool.services.replay.run import Run
from mdtool.services.replay.runs import Runs
from mdtool.wire.dbn import encode_metadata, encode_records
from mdtool.wire.dbn_session import (
    MAX_REQUEST_BYTES,
    Begin,
    End,
    FromLive,
    FromNext,
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
_WRITE_AHEAD_BYTES: Final = 1 << 21
"""So much is written for a receiver that does not take it yet."""


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
    """Return where a receiver's stream begins, in a word."""
    match request:
        case FromLive() | FromNext():
            return "live"
        case Resume(_, position):
            return f"record {position}"
    return "start"


class Session:
    """Sends one receiver what it asks for, as fast as it takes it.

    From the start, a receiver that is slow is behind in its own reading of the files. For one that
    joined live, what the run does not keep any more is left out, and a snapshot of the books takes
    its place.

    Parameters
    ----------
    runs : Runs
    reader, writer : asyncio.StreamReader, asyncio.StreamWriter
    greeting_s : float
        How long to wait for a request; a receiver that says nothing gets all from the start. One
        that comes later still counts.

    Attributes
    ----------
    name : str
        The receiver's address.
    request : Request or None
        What it has asked for, if anything.
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
    ) -> None:
        self.name = format_address(*writer.get_extra_info("peername")[:2])
        self.request: Request | None = None
        self.run: Run | None = None
        self.progress = Progress()
        self._runs = runs
        self._reader = reader
        self._writer = writer
        self._greeting_s = greeting_s
        self._is_plain = False
        self._has_header = False
        notice_loss(writer.get_extra_info("socket"))
        writer.transport.set_write_buffer_limits(_WRITE_AHEAD_BYTES)

    async def serve(self) -> None:
        """Serve the receiver until it has everything, leaves, or asks for what cannot be."""
        try:
            await self._close(await self._converse())
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
            async with asyncio.timeout(self._greeting_s):
                await self._hear()  # what is left unread would cost it the reason
        await self._close(Refused(reason, is_final=False))

    async def _converse(self) -> End | Refused:
        """Send the receiver what it wants; return the last word."""
        try:
            async with asyncio.TaskGroup() as tasks:
                hearing = tasks.create_task(self._hear())
                await asyncio.wait({hearing}, timeout=self._greeting_s)
                if not hearing.done():
                    silently = tasks.create_task(self._stream(None))
                    await asyncio.wait({hearing, silently}, return_when=asyncio.FIRST_COMPLETED)
                    if silently.done() or hearing.result() is None:
                        last_word = await silently
                        hearing.cancel()
                        return last_word
                    # It was only late; its decoder leaves out what it has not asked for.
                    silently.cancel()
                    await asyncio.wait({silently})
                overhearing = tasks.create_task(self._overhear())
                last_word = await self._stream(hearing.result())
                overhearing.cancel()
                return last_word
        except ExceptionGroup as group:
            raise first_error(group) from group

    async def _hear(self) -> Request | None:
        """Return what the receiver asks for, None when it has closed its half without a word."""
        requests = RequestReader()
        data = await self._reader.read(MAX_REQUEST_BYTES)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REQUEST_S):
                while data:
                    requests.feed(data)
                    if requests.request is not None:
                        return requests.request
                    data = await self._reader.read(MAX_REQUEST_BYTES)
        if requests.is_begun:
            raise PeerError("an unfinished request")
        return None

    async def _overhear(self) -> None:
        """Wait for what a receiver should not send: it has said all that it may."""
        while data := await self._reader.read(MAX_REQUEST_BYTES):
            if data.strip(b"\r\n"):
                raise PeerError("more than one request; a connection takes one")
        if isinstance(self.request, FromNext) and self.run is None:
            raise ConnectionError("left")  # else it would be waited for until the next run

    async def _stream(self, request: Request | None) -> End | Refused:
        """Send a stream; to a receiver that has asked for nothing, all of it without answers."""
        self.request = request
        self._is_plain = request is None
        match request:
            case Resume():
                run = await self._runs.of(request)
            case FromNext():
                run = await self._runs.under_way()
            case _:
                run = await self._runs.latest()
        self.run = run
        log.info("receiver %s: from %s", self.name, origin_of(request))
        if not self._has_header:
            self._has_header = True
            self._writer.write(encode_metadata(run.metadata))
        match request:
            case FromLive() | FromNext():
                await self._send_live(run)
            case Resume(_, position):
                await self._send_recorded(run, position)
            case _:
                await self._send_recorded(run, 0)
        if run.error is not None:
            return Refused(run.error, is_final=True)
        return End(run.identity, self.progress.position)

    async def _send_recorded(self, run: Run, first: int) -> None:
        """Send all records from `first` on, no further than the run has come."""
        self._begin(Begin(run.identity, first))
        progress = self.progress
        async with contextlib.AsyncExitStack() as stack:
            behind: ForwardReader | None = None
            while await run.reached(progress.position + 1) > progress.position:
                records = run.recent.read(progress.position)
                if records is None:
                    if behind is None:
                        source = await asyncio.to_thread(run.reopen)
                        behind = ForwardReader(await stack.enter_async_context(reading(source)))
                    records = await behind.read(progress.position)
                await self._send_on(records[: run.position - progress.position])
        if progress.position > run.position:
            raise PeerError(f"this stream has {run.position} records only, not {first}")

    async def _send_live(self, run: Run) -> None:
        """Send the books as they are and what comes, again whenever the receiver falls behind."""
        progress = self.progress
        skipped = 0
        while True:
            await self._send_snapshot(run, skipped)
            if await self._send_recent(run):
                return
            skipped = run.position - progress.position
            progress.skipped += skipped
            log.warning("receiver %s: too slow for %d records", self.name, skipped)

    async def _send_snapshot(self, run: Run, skipped: int) -> None:
        snapshot = run.snapshot()
        n_records = sum(map(len, snapshot))
        self._begin(Begin(run.identity, run.position, n_records, skipped))
        for records in snapshot:
            await self._send(records)

    async def _send_recent(self, run: Run) -> bool:
        """Send what comes, as long as the run keeps it; tell whether that was until its end."""
        progress = self.progress
        while await run.reached(progress.position + 1) > progress.position:
            records = run.recent.read(progress.position)
            if records is None:
                return False
            await self._send_on(records)
        return True

    def _begin(self, begin: Begin) -> None:
        self.progress.position = begin.position
        if not self._is_plain:
            self._writer.write(encode_begin(begin, time.time_ns()))

    async def _send_on(self, records: Records) -> None:
        """Send the next records of the stream."""
        await self._send(records)
        self.progress.position += len(records)

    async def _send(self, records: Records) -> None:
        self._writer.write(encode_records(records))
        await self._writer.drain()
        self.progress.sent += len(records)

    async def _close(self, last_word: End | Refused) -> None:
        """Send the last word, if the receiver understands any, and wait until all is sent."""
        with contextlib.suppress(OSError):
            if not self._has_header:
                self._writer.write(empty_header())
            if isinstance(last_word, Refused):
                self._writer.write(encode_refused(last_word, time.time_ns()))
            elif not self._is_plain:
                self._writer.write(encode_end(last_word, time.time_ns()))
            self._writer.close()
            await self._writer.wait_closed()
