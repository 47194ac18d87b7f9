"""The quotes of what is sent, streamed on a port as DBN: gateways follow them beside the ticks.

Tick frames carry trades only. The records that ticks are made of may have best prices too, or
orders; their quotes are streamed as `mdtool replay-dbn --serve` streams records on its data port.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from mdtool.adapters.dbn_source import DerivedSource, RecordSource
from mdtool.core.addresses import parse_address
from mdtool.core.batch import Batch
from mdtool.core.dtypes import BBO, F_LAST, F_MAYBE_BAD_BOOK, RTYPE_BBO_1S, record_length
from mdtool.core.errors import MdtoolError, PeerError
from mdtool.core.instruments import Instruments
from mdtool.core.permissions import Reader
from mdtool.core.records import Records, index_timestamps
from mdtool.core.tcp import listen, notice_loss, stream_protocol
from mdtool.core.tls import server_tls
from mdtool.engine.pacing import Pacer
from mdtool.engine.quotes import LatestQuotes, Quotes, has_quotes
from mdtool.services.client import GOODBYE_S, Admission, Dismissal, DismissedError
from mdtool.services.limits import CapacityError, LimitError, Limits
from mdtool.services.security import Security
from mdtool.services.usage import keeping_current
from mdtool.wire.dbn import encode_metadata, encode_records
from mdtool.wire.dbn_mappings import mapping_record
from mdtool.wire.dbn_metadata import make_metadata
from mdtool.wire.dbn_session import (
    MAX_REQUEST_BYTES,
    Begin,
    End,
    FromLive,
    FromNext,
    Refused,
    RequestReader,
    empty_header,
    encode_begin,
    encode_end,
    encode_refused,
)

_DATASET: Final = "MDTOOL.QUOTES"
_STREAM: Final = "quotes"
_SCHEMA: Final = "bbo-1s"
_FEED: Final = "quotes"
_ROUND_S: Final = 0.05
"""How long quotes are conflated. A reader that sees twenty a second misses none."""
_BATCHES_AHEAD: Final = 8
"""How many batches may wait until they are due; the source is blocked beyond it."""
_MAX_RECEIVERS: Final = 64
_REQUEST_S: Final = 5.0
"""How long a receiver may take to request the stream."""


class QuotePort:
    """Streams the latest quote of each instrument of a source, as records of `bbo-1s`.

    Quotes are those of the time that the ticks have reached. A receiver that connects is sent all
    quotes, then those that change; a slow one is sent the latest.

    Parameters
    ----------
    address : str
        HOST:PORT to listen on.

    Attributes
    ----------
    address : str
        The real one, once it runs.

    Raises
    ------
    UsageError
        When the address is not valid.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._host, self._port = parse_address(address)
        self._due = _Due()
        self._latest = LatestQuotes()
        self._instruments = Instruments()
        self._admission: Admission
        self._round = 0
        self._changed_in = np.zeros(0, np.int64)
        """In which round each instrument's quote has changed last."""
        self._has_changed = asyncio.Event()

    def watch(self, source: RecordSource) -> RecordSource:
        """Return the source itself, whose quotes are streamed as it is read."""
        self._instruments = source.instruments
        return _Watched(source, self._due)

    async def run(self, pacer: Pacer) -> None:
        """Serve until cancelled.

        Parameters
        ----------
        pacer : Pacer
            That of the ticks, which says what time they have reached.

        Raises
        ------
        StartupError
            When the address cannot be listened on.
        ConfigError
            When it is beyond loopback, and nothing says whether clients authenticate.
        """
        security = Security.load("send --quotes-at", self._host)
        self._admission = Admission(Limits(connections=_MAX_RECEIVERS), security)
        async with (
            asyncio.TaskGroup() as tasks,
            keeping_current(self._admission),
        ):
            protocol = stream_protocol(tasks, self._serve)
            try:
                tls = server_tls("replay-dbn")  # whose readers read it too
                server = await listen(protocol, self._host, self._port, "--quotes-at", tls=tls)
                self.address = server.address
                try:
                    while True:
                        self._advance(pacer.reached_ns(time.monotonic_ns()))
                        await asyncio.sleep(_ROUND_S)
                finally:
                    server.close()
                    self._advance(pacer.reached_ns(time.monotonic_ns()))
            finally:
                self._due.close()

    def _advance(self, reached_ns: int | None) -> None:
        """Apply the records that are due by now, and wake the receivers if a quote changed."""
        changed = [
            quotes["instrument"]
            for batch in self._due.take(reached_ns)
            if len(quotes := self._latest.update(batch))
        ]
        if not changed:
            return
        self._round += 1
        instruments = np.concatenate(changed).astype(np.intp)
        n_new = int(instruments.max()) + 1 - len(self._changed_in)
        if n_new > 0:
            self._changed_in = np.append(self._changed_in, np.zeros(n_new, np.int64))
        self._changed_in[instruments] = self._round
        self._has_changed.set()
        self._has_changed = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        notice_loss(writer.get_extra_info("socket"))
        client, dismissal = self._admission.peer(writer.transport), Dismissal()
        try:
            with client.connected("quotes", dismissal.close):
                token = await _requested(reader)
                if token is not None:
                    await client.authenticate_now(token)
                client.check_feed(_FEED)
                await self._stream(writer, client.principal.access.reader(_FEED), dismissal)
        except (OSError, TimeoutError):
            pass  # the receiver has left, or requested nothing
        except MdtoolError as error:
            refused = Refused(
                str(error), is_final=not isinstance(error, CapacityError | LimitError)
            )
            writer.write(empty_header() + encode_refused(refused, time.time_ns()))
        finally:
            writer.close()

    async def _stream(
        self, writer: asyncio.StreamWriter, shown: Reader | None, dismissal: Dismissal
    ) -> None:
        """Send all quotes that are shown, then those that changed, until the receiver is lost."""
        now_ns = time.time_ns()
        writer.write(encode_metadata(make_metadata(_DATASET, _SCHEMA, now_ns)))
        writer.write(encode_begin(Begin(_STREAM, 0), now_ns))
        sent, named = 0, 0
        try:
            with dismissal:
                while True:
                    self._write_changed(writer, sent, named, shown)
                    sent, named = self._round, len(self._changed_in)
                    await writer.drain()
                    if self._round == sent:
                        await self._has_changed.wait()
        except DismissedError as error:
            await _dismiss(writer, str(error))
        except asyncio.CancelledError:
            self._write_changed(writer, sent, named, shown)
            writer.write(encode_end(End(_STREAM, 0), time.time_ns()))
            raise

    def _write_changed(
        self, writer: asyncio.StreamWriter, after: int, named: int, shown: Reader | None
    ) -> None:
        """Write the quotes that changed after a round, and the names that are not known yet."""
        now_ns = time.time_ns()
        for index in range(named, len(self._changed_in)):
            if shown is None or shown.can_read(self._instruments[index].text):
                writer.write(self._name(index, now_ns))
        changed = np.flatnonzero(self._changed_in > after)
        if shown is not None:
            is_shown = [shown.can_read(self._instruments[at].text) for at in changed.tolist()]
            changed = changed[np.array(is_shown, np.bool_)]
        writer.write(encode_records(_records(self._latest.of(changed))))

    def _name(self, index: int, ts_ns: int) -> memoryview:
        """Return the mapping of an instrument's id in this stream, which is its index."""
        instrument = self._instruments[index]
        labelled = dataclasses.replace(instrument, publisher_id=0, names=(instrument.text,))
        return encode_records(mapping_record(labelled, index, ts_ns))


class _Watched(DerivedSource):
    """A source whose records with quotes are handed over before they are yielded."""

    def __init__(self, source: RecordSource, due: _Due) -> None:
        super().__init__(source)
        self._due = due

    def __iter__(self) -> Iterator[Batch]:
        is_compiled = False
        for batch in self._source:
            if has_quotes(batch.records.dtype):
                if not is_compiled:
                    LatestQuotes().update(batch[:1])  # in this thread, which may take its time
                    is_compiled = True
                self._due.put(batch)
            yield batch


class _Due:
    """Batches between the thread that reads them and the event loop, until they are due."""

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._has_room = threading.Condition()
        self._is_closed = False

    def put(self, batch: Batch) -> None:
        """Add a batch; block while there are too many that are not due yet."""
        with self._has_room:
            self._has_room.wait_for(lambda: self._is_closed or len(self._batches) < _BATCHES_AHEAD)
            if not self._is_closed:
                self._batches.append(batch)

    def take(self, reached_ns: int | None) -> list[Batch]:
        """Return the records that are due up to a time, without a time all."""
        taken: list[Batch] = []
        with self._has_room:
            while self._batches:
                batch = self._batches[0]
                n_due = len(batch) if reached_ns is None else _count_due(batch, reached_ns)
                if n_due:
                    taken.append(batch[:n_due])
                if n_due < len(batch):
                    self._batches[0] = batch[n_due:]
                    break
                self._batches.popleft()
            self._has_room.notify_all()
        return taken

    def close(self) -> None:
        """Take no more batches, and block nobody."""
        with self._has_room:
            self._is_closed = True
            self._batches.clear()
            self._has_room.notify_all()


def _count_due(batch: Batch, reached_ns: int) -> int:
    is_later: npt.NDArray[np.bool_] = index_timestamps(batch.records) > reached_ns
    return int(is_later.argmax()) if is_later.any() else len(batch)


async def _requested(reader: asyncio.StreamReader) -> str | None:
    """Wait for a receiver's request of the stream; return the token that came with it.

    Raises
    ------
    PeerError
        When it requests another one, or its beginning.
    OSError
        When it disconnects, or requests nothing.
    """
    requests = RequestReader()
    async with asyncio.timeout(_REQUEST_S):
        while requests.request is None:
            data = await reader.read(MAX_REQUEST_BYTES)
            if not data:
                raise ConnectionError("no request")
            requests.feed(data)
    if not isinstance(requests.request, FromLive | FromNext):
        raise PeerError("quotes are streamed from now on: request from=live")
    return requests.token


async def _dismiss(writer: asyncio.StreamWriter, reason: str) -> None:
    """Say why the stream ends, and end the connection of a receiver that does not read in time."""
    writer.write(encode_refused(Refused(reason, is_final=True), time.time_ns()))
    writer.close()
    try:
        async with asyncio.timeout(GOODBYE_S):
            await writer.wait_closed()
    except TimeoutError:
        writer.transport.abort()


def _records(quotes: Quotes) -> Records:
    """Return quotes as BBO records, whose sizes are unknown."""
    records = np.zeros(len(quotes), BBO)
    records["length"], records["rtype"] = record_length(BBO), RTYPE_BBO_1S
    records["instrument_id"] = quotes["instrument"]
    records["ts_event"] = records["ts_recv"] = quotes["ts_recv"]
    records["side"] = b"N"
    records["price"] = quotes["last"]
    records["bid_px_00"], records["ask_px_00"] = quotes["bid"], quotes["ask"]
    records["flags"] = np.where(quotes["is_partial"], F_LAST | F_MAYBE_BAD_BOOK, F_LAST)
    return records
