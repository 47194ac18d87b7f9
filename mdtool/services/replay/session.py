"""A receiver's connection to the data port: its request, and the stream that it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from dataclasses import dataclass
from typing import Any, Final

from mdtool.core.errors import MdtoolError, PeerError
from mdtool.core.lifecycle import one_error
from mdtool.core.records import Records
from mdtool.core.tcp import notice_loss, peer_name
from mdtool.services.client import GOODBYE_S, Client, Dismissal, DismissedError
from mdtool.services.dbn_access import ShownRecords, check_records, reads_all
from mdtool.services.replay.reading import ForwardReader, reading
from mdtool.services.replay.runs import Run, Runs
from mdtool.services.security import LOGIN_S
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
    SpeaksTlsError,
    empty_header,
    encode_begin,
    encode_end,
    encode_refused,
)

log = logging.getLogger(__name__)

_REQUEST_S: Final = 5.0
"""How long a request may take after its first bytes."""
_WRITE_AHEAD_BYTES: Final = 1 << 21
"""The write buffer of a receiver that is not reading."""


@dataclass(slots=True)
class Progress:
    """How far one receiver has come.

    Attributes
    ----------
    position : int
        Its place in the stream: all records before it were sent or skipped.
    sent : int
        Records that it was sent, those of snapshots included.
    skipped : int
        Records that it was too slow for; a snapshot took their place.
    """

    position: int = 0
    sent: int = 0
    skipped: int = 0


class Session:
    """Sends one receiver the stream that it requests, as fast as it reads.

    A slow receiver of a whole stream reads the files at its own pace. A receiver that joined live
    skips what has left the backlog, and gets a snapshot of the books instead.

    A receiver that may not read every symbol is sent what it may, and positions count only that; it
    cannot resume, since what a run has reached is counted with the rest.

    Parameters
    ----------
    runs : Runs
    client : Client
        Who the receiver is; it authenticates before its request.
    reader, writer : asyncio.StreamReader, asyncio.StreamWriter
    greeting_s : float
        How long to wait for a request. After that a receiver is sent everything from the start; a
        request that comes later still counts.

    Attributes
    ----------
    dismissal : Dismissal
        Ends the session once its client is to be closed.
    """

    def __init__(
        self,
        runs: Runs,
        client: Client,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        greeting_s: float,
    ) -> None:
        self._name = peer_name(writer.transport)
        self._request: Request | None = None
        self._run: Run | None = None
        self._progress = Progress()
        self._runs = runs
        self._client = client
        self._token: str | None = None
        self._shown: ShownRecords | None = None
        self._counted = 0
        """Records of the stream that it was sent, where it may not read every symbol."""
        self._reader = reader
        self._writer = writer
        self._greeting_s = greeting_s
        self.dismissal = Dismissal()
        self._is_plain = False
        self._has_header = False
        notice_loss(writer.get_extra_info("socket"))
        writer.transport.set_write_buffer_limits(_WRITE_AHEAD_BYTES)

    async def serve(self) -> None:
        """Serve the receiver until it has everything, disconnects, or is rejected."""
        try:
            with self.dismissal:
                await self._close(await self._exchange())
        except DismissedError as error:
            log.warning("receiver %s: dismissed: %s", self._name, error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await self._close(self._failure(str(error)))
        except SpeaksTlsError:
            self._client.report_tls(self._name)
        except MdtoolError as error:
            log.warning("receiver %s: rejected: %s", self._name, error)
            await self._close(self._failure(str(error)))
        except OSError as error:
            position = self._progress.position
            log.info("receiver %s: disconnected at record %d: %s", self._name, position, error)
        except Exception:
            log.exception("receiver %s", self._name)
        finally:
            # asyncio's transports raise this once they have closed with a last write.
            with contextlib.suppress(AttributeError):
                self._writer.transport.abort()

    async def reject(self, reason: str) -> None:
        """Reject the receiver, which may try again later."""
        log.warning("receiver %s: rejected: %s", self._name, reason)
        with contextlib.suppress(MdtoolError, OSError):
            async with asyncio.timeout(self._greeting_s):
                await self._read_request()  # unread bytes would reset the connection
        await self._close(Refused(reason, is_final=False))

    def report(self) -> dict[str, Any]:
        """Return what the status of the sender shows of this receiver, for JSON."""
        progress, run = self._progress, self._run
        return {
            "address": self._name,
            "from": _origin_of(self._request),
            "position": progress.position,
            "behind": max(run.position - progress.position, 0) if run is not None else 0,
            "sent": progress.sent,
            "skipped": progress.skipped,
        }

    async def _exchange(self) -> End | Refused:
        """Send the receiver what it requests; return the final message."""
        with one_error():
            async with asyncio.TaskGroup() as tasks:
                requesting = tasks.create_task(self._read_request())
                patience_s = LOGIN_S if self._client.needs_token else self._greeting_s
                await asyncio.wait({requesting}, timeout=patience_s)
                if not requesting.done():
                    silent = tasks.create_task(self._stream(None))
                    await asyncio.wait({requesting, silent}, return_when=asyncio.FIRST_COMPLETED)
                    if silent.done() or requesting.result() is None:
                        final = await silent
                        requesting.cancel()
                        return final
                    # The request was late; the receiver's decoder drops the records before Begin.
                    silent.cancel()
                    await asyncio.wait({silent})
                guarding = tasks.create_task(self._reject_more())
                final = await self._stream(requesting.result())
                guarding.cancel()
                return final

    async def _read_request(self) -> Request | None:
        """Return the receiver's request, None when it closes its half without one."""
        requests = RequestReader()
        data = await self._reader.read(MAX_REQUEST_BYTES)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REQUEST_S):
                while data:
                    requests.feed(data)
                    self._token = requests.token
                    if requests.request is not None:
                        return requests.request
                    data = await self._reader.read(MAX_REQUEST_BYTES)
        if requests.is_begun:
            raise PeerError("an unfinished request")
        return None

    async def _reject_more(self) -> None:
        """Raise for bytes after the request; return when the receiver closes its half."""
        while data := await self._reader.read(MAX_REQUEST_BYTES):
            if data.strip(b"\r\n"):
                raise PeerError("more than one request; a connection takes one")
        if isinstance(self._request, FromNext) and self._run is None:
            raise ConnectionError("disconnected")  # the next run may be hours away

    async def _stream(self, request: Request | None) -> End | Refused:
        """Send a stream; without a request, all of it and no session records."""
        self._request = request
        self._is_plain = request is None
        await self._authenticate()
        match request:
            case Resume():
                run = await self._runs.resumable(request)
            case FromNext():
                run = await self._runs.in_progress()
            case _:
                run = await self._runs.latest()
        self._run = run
        log.info("receiver %s: from %s", self._name, _origin_of(request))
        metadata, access = run.metadata, self._client.principal.access
        if not reads_all(access):
            if isinstance(request, Resume):
                raise PeerError("to resume takes every symbol; request from=start or from=live")
            self._shown = ShownRecords(access, metadata)
            metadata = self._shown.metadata
        if not self._has_header:
            self._has_header = True
            self._writer.write(encode_metadata(metadata))
        match request:
            case FromLive() | FromNext():
                await self._send_live(run)
            case Resume(_, position):
                await self._send_recorded(run, position)
            case _:
                await self._send_recorded(run, 0)
        if run.error is not None:
            return self._failure(run.error)
        return End(run.identity, self._place)

    def _failure(self, reason: str) -> Refused:
        """Return the final message of a session that has failed."""
        return Refused(self._runs.recording.without_folders(reason), is_final=True)

    async def _authenticate(self) -> None:
        """Take the token of the receiver; raise TokenError or ForbiddenError where it may not."""
        if self._token is not None:
            if self._has_header:
                raise PeerError("the token came after the stream had begun; send it at once")
            await self._client.authenticate_now(self._token)
        check_records(self._client)

    @property
    def _place(self) -> int:
        """The receiver's position as it counts."""
        return self._progress.position if self._shown is None else self._counted

    async def _send_recorded(self, run: Run, first: int) -> None:
        """Send all records from `first` on, as far as the run has come."""
        self._begin(Begin(run.identity, first))
        progress = self._progress
        async with contextlib.AsyncExitStack() as stack:
            reader: ForwardReader | None = None
            while await run.reached(progress.position + 1) > progress.position:
                records = run.backlog.read(progress.position)
                if records is None:
                    if reader is None:
                        source = await asyncio.to_thread(run.reopen)
                        batches = reading(source, is_resolved=False)
                        reader = ForwardReader(await stack.enter_async_context(batches))
                    records = (await reader.read(progress.position)).records
                await self._send_next(records[: run.position - progress.position])
        if progress.position > run.position:
            raise PeerError(f"this stream has {run.position} records only, not {first}")

    async def _send_live(self, run: Run) -> None:
        """Send a snapshot and what follows, again whenever the receiver falls behind."""
        progress = self._progress
        skipped = 0
        while True:
            await self._send_snapshot(run, skipped)
            if await self._send_backlog(run):
                return
            skipped = run.position - progress.position
            progress.skipped += skipped
            log.warning("receiver %s: too slow, skipped %d records", self._name, skipped)

    async def _send_snapshot(self, run: Run, skipped: int) -> None:
        snapshot = run.snapshot()
        if self._shown is not None:
            snapshot = [*map(self._shown.select, snapshot)]
            skipped = min(skipped, 1)  # the records of other symbols are not counted for it
        n_records = sum(map(len, snapshot))
        self._begin(Begin(run.identity, run.position, n_records, skipped))
        for records in snapshot:
            if len(records):
                await self._send(records)

    async def _send_backlog(self, run: Run) -> bool:
        """Send records while the backlog has them; return whether it had all to the run's end."""
        progress = self._progress
        while await run.reached(progress.position + 1) > progress.position:
            records = run.backlog.read(progress.position)
            if records is None:
                return False
            await self._send_next(records)
        return True

    def _begin(self, begin: Begin) -> None:
        self._progress.position = begin.position
        if self._shown is not None:
            begin = dataclasses.replace(begin, position=self._counted)
        if not self._is_plain:
            self._writer.write(encode_begin(begin, time.time_ns()))

    async def _send_next(self, records: Records) -> None:
        """Send the next records of the stream, as far as the receiver may read them."""
        own = records if self._shown is None else self._shown.select(records)
        if len(own):
            await self._send(own)
        self._counted += len(own)
        self._progress.position += len(records)

    async def _send(self, records: Records) -> None:
        data = encode_records(records)
        self._writer.write(data)
        await self._writer.drain()
        await self._client.pay(len(data))
        self._progress.sent += len(records)

    async def _close(self, final: End | Refused) -> None:
        """Send the final message, unless the receiver is a plain one, and wait until it is sent."""
        with contextlib.suppress(OSError):
            if not self._has_header:
                self._writer.write(empty_header())
            if isinstance(final, Refused):
                self._writer.write(encode_refused(final, time.time_ns()))
            elif not self._is_plain:
                self._writer.write(encode_end(final, time.time_ns()))
            self._writer.close()
            await self._writer.wait_closed()


def _origin_of(request: Request | None) -> str:
    """Return where a receiver's stream begins, in a word."""
    match request:
        case FromLive() | FromNext():
            return "live"
        case Resume(_, position):
            return f"record {position}"
    return "start"
