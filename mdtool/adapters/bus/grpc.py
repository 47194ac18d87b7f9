"""A bus that sends ticks to the aggregator over one gRPC call."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, Final

import grpc
import grpc.aio

from mdtool.adapters import rpc
from mdtool.adapters.bus.base import MAX_WAIT_S, BaseBus
from mdtool.adapters.bus.pending import PendingRuns
from mdtool.adapters.local_rpc import LocalStub
from mdtool.core import tracing
from mdtool.core.backoff import delays
from mdtool.core.errors import PeerError
from mdtool.core.lifecycle import first_error
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Frames
from mdtool.wire._pb import marketdata_pb2
from mdtool.wire.batches import encode_batch

log = logging.getLogger(__name__)

_COLLECT_S: Final = 0.001
_PATIENCE_S: Final = 5.0
"""How long an aggregator that was never there may still be starting, and is not reported."""
_REFUSALS: Final = frozenset(
    {
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
"""Statuses for which a retry would not help."""


class _CallEndedError(Exception):
    """The aggregator ended the call, as it does when it stops."""


class GrpcBus(BaseBus):
    """Sends batches over a `StreamTickBatches` call, and holds each until its BatchAck.

    After a lost call it opens another and sends again, in order, what was not acknowledged; the
    aggregator recognises by their positions the frames that it has already.

    Parameters
    ----------
    address : str
        The aggregator's `HOST:PORT`.
    symbols : SymbolTable
        What the symbol indices of published ticks mean; it may grow.
    socket : str, optional
        The aggregator's Unix socket, over which the batches then go.
    """

    def __init__(self, address: str, symbols: SymbolTable, socket: str = "") -> None:
        super().__init__()
        self._address = address
        self._socket = socket
        self._symbols = symbols
        self._pending = PendingRuns(symbols)
        self._delays = delays(cap_s=MAX_WAIT_S)
        self._is_unavailable = False
        self._was_connected = False
        self._is_leaving = False

    @property
    def peer(self) -> str:
        """The aggregator and its address."""
        return f"aggregator {self._address}"

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        self._channel = rpc.open_channel(self._address)
        await stack.enter_async_context(self._channel)
        self._stub = rpc.Stub(self._channel)
        self._streams = LocalStub(self._socket) if self._socket else self._stub
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        stack.callback(self._leave, tasks.create_task(self._stay_connected(), name=self.peer))

    def publish(self, stream_id: str, first_sequence: int, frames: Frames) -> None:
        """Queue the run for the next message."""
        self._pending.add(stream_id, first_sequence, frames)

    async def _request_position(self, stream_id: str) -> int | None:
        request = marketdata_pb2.StreamPositionRequest(stream_id=stream_id)
        try:
            with rpc.cancellable():
                reply = await self._stub.GetStreamPosition(request, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            self._raise_refusal(error)
            return None
        return reply.next_sequence if reply.known else 0

    async def _request_owner(self, stream_id: str, principal: str) -> str | None:
        request = marketdata_pb2.StreamClaim(stream_id=stream_id, principal=principal)
        try:
            with rpc.cancellable():
                reply = await self._stub.ClaimStream(request, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            self._raise_refusal(error)
            return None
        return str(reply.principal)

    def _leave(self, task: asyncio.Task[None]) -> None:
        self._is_leaving = True
        task.cancel()

    async def _stay_connected(self) -> None:
        while True:
            await self._connected()
            call: Any = self._streams.StreamTickBatches()
            self._pending.restart()
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._send(call))
                    tasks.create_task(self._receive(call))
            except* (grpc.aio.AioRpcError, asyncio.InvalidStateError, _CallEndedError) as errors:
                self._lost(first_error(errors))
            finally:
                call.cancel()
            if self._is_leaving:  # a TaskGroup with a failed task can swallow a cancellation
                return
            await asyncio.sleep(next(self._delays))

    async def _connected(self) -> None:
        """Wait for a connection; the channel itself retries, with a capped backoff."""
        loop = asyncio.get_running_loop()
        patient_until_s = 0.0 if self._was_connected else loop.time() + _PATIENCE_S
        while True:
            state = self._channel.get_state(try_to_connect=True)
            if state is grpc.ChannelConnectivity.READY:
                return
            is_failed = state is grpc.ChannelConnectivity.TRANSIENT_FAILURE
            may_report_at_s = None
            if is_failed and loop.time() >= patient_until_s:
                self._set_unavailable("cannot be reached")
            elif is_failed:  # a name that cannot be resolved is tried again after half a minute
                may_report_at_s = patient_until_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(may_report_at_s):
                    await self._channel.wait_for_state_change(state)

    async def _send(self, call: Any) -> None:
        known_symbols = known_lots = 0
        async for run in self._pending.batches(_COLLECT_S):
            new_symbols = self._symbols.since(known_symbols)
            known_symbols += len(new_symbols)
            new_lots = self._symbols.lots_since(known_lots)
            known_lots += len(new_lots)
            traceparent = tracing.traceparent_of(run)
            await call.write(encode_batch(run, new_symbols, new_lots, traceparent))

    async def _receive(self, call: Any) -> None:
        async for ack in call:
            if self._is_unavailable:
                log.info("%s: reconnected" if self._was_connected else "%s: connected", self.peer)
            self._is_unavailable = False
            self._was_connected = True
            self._delays = delays(cap_s=MAX_WAIT_S)
            self._commit(ack.stream_id, ack.next_sequence)
        raise _CallEndedError

    def _commit(self, stream_id: str, next_sequence: int) -> None:
        self._pending.commit(stream_id, next_sequence)
        self._notify(stream_id, next_sequence)

    def _lost(self, error: BaseException) -> None:
        if not isinstance(error, grpc.aio.AioRpcError):
            self._set_unavailable("ended the call")
            return
        self._raise_refusal(error)
        self._set_unavailable(f"was lost ({error.code().name.lower()}: {rpc.reason(error)})")

    def _set_unavailable(self, how: str) -> None:
        if not self._is_unavailable:
            self._is_unavailable = True
            level = logging.WARNING if self._was_connected else logging.INFO
            message = "%s %s; what it has not committed will be sent again"
            log.log(level, message, self.peer, how)

    def _raise_refusal(self, error: grpc.aio.AioRpcError) -> None:
        if error.code() in _REFUSALS:
            raise PeerError(
                f"{self.peer} refused ({error.code().name.lower()}): {rpc.reason(error)}"
            ) from error
