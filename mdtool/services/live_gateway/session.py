"""A client's connection to the live gateway, from its greeting to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import struct
from collections.abc import Mapping
from typing import Any, Final

from mdtool.core.errors import InputError
from mdtool.core.lifecycle import first_error
from mdtool.core.permissions import ForbiddenError
from mdtool.core.tcp import notice_loss, peer_name
from mdtool.services.client import Dismissal, DismissedError
from mdtool.services.client_address import client_address
from mdtool.services.dbn_access import reads_all
from mdtool.services.live_gateway.config import LiveGatewayConfig
from mdtool.services.live_gateway.faults import (
    ENDS,
    ERROR,
    LATE_AUTH,
    RESET,
    Fault,
    FaultError,
    FaultyOutput,
    Link,
    SessionFaults,
)
from mdtool.services.live_gateway.inbox import Inbox, SessionError
from mdtool.services.live_gateway.keys import Key, Keys
from mdtool.services.live_gateway.output import end
from mdtool.services.live_gateway.playback import Playback
from mdtool.services.live_gateway.stream import Stream
from mdtool.wire.live import (
    Accepted,
    Authentication,
    Challenge,
    ControlError,
    Greeting,
    Rejected,
    encode_answer,
)
from mdtool.wire.live_records import Failure, deactivated, failed, invalid
from mdtool.wire.websocket import CloseCode

log = logging.getLogger(__name__)

_WRITE_AHEAD_BYTES: Final = 1 << 20
_CRAM_BYTES: Final = 24
"""They make 32 characters."""
_CLOSE_S: Final = 5.0
"""How long a client may take to close its half once it has been sent everything."""
_STAY: Final = "stay connected"
_KEY_ENDED: Final = "the key was removed, or has other roles now"


class Session:
    """Serves one client from its greeting to its end, at the pace at which it reads.

    Sessions share a playback, and nothing that one of them does keeps another one waiting. What has
    left the playback's backlog is read from the files again.

    Parameters
    ----------
    number : int
        Its id.
    playbacks : mapping of str to Playback
        By dataset.
    config : LiveGatewayConfig
    keys : Keys
    faults : SessionFaults
    reader, writer : asyncio.StreamReader, asyncio.StreamWriter
    """

    def __init__(
        self,
        number: int,
        playbacks: Mapping[str, Playback],
        config: LiveGatewayConfig,
        keys: Keys,
        faults: SessionFaults,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._number = number
        self._playbacks = playbacks
        self._config = config
        self._keys = keys
        self._faults = faults
        self._output: FaultyOutput | None = None
        self._request: Authentication | None = None
        self._key: Key | None = None
        self._dismissal = Dismissal()
        self._writer = writer
        self._name = peer_name(writer.transport)
        self._address = client_address(*(writer.get_extra_info("peername") or ("",))[:1])
        self._inbox = Inbox(reader, config.subscriptions_per_s)
        notice_loss(writer.get_extra_info("socket"))
        writer.transport.set_write_buffer_limits(_WRITE_AHEAD_BYTES)

    async def serve(self, rejection: str | None = None) -> None:
        """Serve the client until it has everything, disconnects, or is rejected.

        Parameters
        ----------
        rejection : str, optional
            The reason why it is rejected once it has authenticated.
        """
        try:
            request = await self._login(rejection)
            if request is not None and self._key is not None:
                await self._exchange(request, self._key)
        except OSError as error:
            log.info("session %d: %s disconnected: %s", self._number, self._name, error)
        except asyncio.CancelledError:
            self._reset()
            raise
        except Exception:
            log.exception("session %d: %s", self._number, self._name)
            self._reset()
        finally:
            # asyncio's transports raise this once they have closed with a last write.
            with contextlib.suppress(AttributeError):
                self._writer.transport.abort()

    def inject(self, fault: Fault) -> None:
        """Add a fault, which happens now unless it says when."""
        output = self._output
        if not fault.is_immediate or output is None:
            self._faults.add(fault)
        elif fault.kind == RESET:
            self._reset()
            self._writer.transport.abort()
        elif fault.kind in ENDS:
            self._inbox.interrupt(FaultError(fault))
        else:
            output.fail(fault)

    def check_key(self) -> None:
        """End the session where its key is not valid any more."""
        if self._key is not None and not self._keys.is_valid(self._key):
            self._keys.note(self._key, self._address, _STAY, _KEY_ENDED)
            self._dismissal.close(CloseCode.UNAUTHORIZED, _KEY_ENDED)

    def report(self) -> dict[str, Any]:
        """Return what the status of the gateway shows of the session, for JSON."""
        request = self._request
        return {
            "session": self._number,
            "address": self._name,
            "client": None if request is None else request.client,
            "dataset": None if request is None else request.dataset,
            "records": 0 if self._output is None else self._output.records,
        }

    def _reset(self) -> None:
        """Let the connection end with a reset: to clients, an orderly end is the end of the data.

        What is lost makes them connect again.
        """
        connection = self._writer.get_extra_info("socket")
        if connection is None:  # TLS has closed it
            return
        with contextlib.suppress(OSError):  # it is lost already
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def _login(self, rejection: str | None) -> Authentication | None:
        """Greet and challenge; return what the client answers, None if that is not accepted."""
        cram = secrets.token_urlsafe(_CRAM_BYTES)
        self._writer.write(encode_answer(Greeting()) + encode_answer(Challenge(cram)))
        try:
            async with asyncio.timeout(self._config.login_s):
                request = await self._inbox.first()
        except TimeoutError:
            await self._reject("no authentication in time")
            return None
        except ControlError as error:
            await self._reject(str(error))
            return None
        if not isinstance(request, Authentication):
            return None
        key = self._keys.find(cram, request)
        known = ", ".join(self._playbacks)
        if key is None:
            rejection = "authentication failed: unknown key, or a wrong answer to the challenge"
        elif rejection is None and request.dataset not in self._playbacks:
            rejection = f"dataset {request.dataset} is not served here; choose from {known}"
        elif rejection is None and self._config.bare and not reads_all(key.owner.access):
            rejection = "--bare is for keys that may read every symbol of every feed"
        elif rejection is None and self._config.bare and request.encoding != "dbn":
            rejection = f"encoding {request.encoding} is not served with --bare; choose dbn"
        for fault in self._faults.login():
            if fault.kind == LATE_AUTH:
                await asyncio.sleep(fault.seconds)
            else:
                rejection = rejection or fault.text
        if key is not None and not self._keys.is_valid(key):
            rejection = _KEY_ENDED
        self._keys.note(key, self._address, f"enter {request.dataset:.80}", rejection)
        if key is None or rejection is not None:
            await self._reject(rejection or "")
            return None
        self._key = key
        self._writer.write(encode_answer(Accepted(self._number)))
        name = request.client or "a client"
        log.info("session %d: %s (%s, %s)", self._number, self._name, key.owner.name, name)
        return request

    async def _reject(self, reason: str) -> None:
        log.warning("session %d: %s rejected: %s", self._number, self._name, reason)
        self._writer.write(encode_answer(Rejected(reason)))
        end(Link(self._writer))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._inbox.receive()

    async def _exchange(self, request: Authentication, key: Key) -> None:
        """Serve an authenticated client."""
        version = self._config.dbn_version
        output = FaultyOutput(Link(self._writer), request, version, self._faults)
        self._request, self._output = request, output
        try:
            async with asyncio.TaskGroup() as tasks:
                receiving = tasks.create_task(self._inbox.receive())
                stream = Stream(self._config, self._inbox, output, request, key.owner.access)
                failure: Failure | None = None
                patience_s = None
                try:
                    with self._dismissal:
                        await stream.run(self._playbacks[request.dataset])
                except DismissedError as error:
                    failure = deactivated(str(error))
                    patience_s = _CLOSE_S
                except SessionError as error:
                    failure = error.failure
                except ForbiddenError as error:
                    self._keys.note(key, self._address, "subscribe", str(error))
                    failure = invalid(str(error))
                except InputError as error:
                    # Where files are is for the log alone.
                    log.error("session %d: %s", self._number, error)  # noqa: TRY400
                    failure = failed(self._playbacks[request.dataset].without_folders(str(error)))
                except FaultError as error:
                    failure = _failure_of(error.fault)
                    if error.fault.kind == RESET:
                        self._reset()
                        receiving.cancel()
                        return
                if failure is not None:
                    log.warning("session %d: ended: %s", self._number, failure.text)
                    output.header()
                    output.failure(failure)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience_s):
                        await self._finish(output, receiving)
                receiving.cancel()
        except ExceptionGroup as group:
            raise first_error(group) from group
        finally:
            log.info("session %d: ended after %d records", self._number, output.records)

    async def _finish(self, output: FaultyOutput, receiving: asyncio.Task[None]) -> None:
        """End the stream of a client that has not left, and wait until it closes its half."""
        self._inbox.drop()
        if self._inbox.has_left:
            return
        await output.end()
        # Not before the client has it all does the time run in which it has to close.
        self._writer.transport.set_write_buffer_limits(high=1, low=0)
        await self._writer.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await asyncio.wait({receiving})


def _failure_of(fault: Fault) -> Failure | None:
    """Return the error record that a fault ends a session with, if it does so."""
    return Failure(fault.code, fault.text, is_fatal=True) if fault.kind == ERROR else None
