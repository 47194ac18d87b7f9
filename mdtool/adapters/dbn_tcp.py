"""DBN streams read from a TCP server that sends one to each client."""

from __future__ import annotations

import contextlib
import logging
import select
import socket
from collections.abc import Iterator
from typing import Final

from mdtool.adapters.dbn_source import DbnSource
from mdtool.core.addresses import format_address
from mdtool.core.batch import Batch
from mdtool.core.dtypes import RTYPE_ERROR, RTYPE_SYSTEM
from mdtool.core.errors import InputError, PeerError
from mdtool.core.tcp import notice_loss, reason_of
from mdtool.core.tls import client_tls
from mdtool.wire.dbn_session import (
    BEGIN_AGAIN_CODE,
    BEGIN_CODE,
    END_CODE,
    FromLive,
    encode_request,
)

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S: Final = 5.0
FIRST_WORD_S: Final = 0.05
"""How long a server may take to send first: senders of mdtool wait longer for a request, and a
server that never reads one would end its stream with a reset."""
_PATIENCE_S: Final = 1.0
"""The wait after which a log line reports what the source waits for."""


class TcpSource(DbnSource):
    """The records of a stream that comes over TCP.

    A server that does not send first, such as a sender of mdtool, is sent a request for live
    records, after a snapshot of its books. A sender marks the end of its stream; iterating raises
    InputError where it is lost before, and PeerError where the sender ended it with an error. Any
    other server's stream ends with its connection.

    Parameters
    ----------
    name : str
    connection : socket.socket
        Closed together with the source, which ends a read that waits in another thread.
    """

    def __init__(self, name: str, connection: socket.socket) -> None:
        self._connection = connection
        self._has_come = False
        self._is_sender = False
        super().__init__(name, self._receive_some, self._hang_up)

    def __iter__(self) -> Iterator[Batch]:
        has_ended = False
        for batch in super().__iter__():
            records, rtype = batch.records, batch.rtype
            if rtype == RTYPE_ERROR:
                raise PeerError(f"{self.name}: {records['err'][0].decode('ascii', 'replace')}")
            if rtype == RTYPE_SYSTEM:
                codes = set(records["code"].tolist())
                self._is_sender |= BEGIN_CODE in codes
                has_ended |= END_CODE in codes
                if BEGIN_AGAIN_CODE in codes:
                    log.warning(
                        "%s: too fast to follow; resumed from a snapshot of its books", self.name
                    )
            yield batch
        if self._is_sender and not has_ended:
            raise InputError(f"{self.name}: the connection ended before the stream did")

    def _receive_some(self, n_bytes: int) -> bytes:
        try:
            if not self._has_come and not select.select([self._connection], [], [], _PATIENCE_S)[0]:
                log.info("%s: waiting for its stream to begin", self.name)
            data = self._connection.recv(n_bytes)
        except ConnectionResetError:
            if self._is_sender or not self._has_come:
                raise InputError(f"{self.name}: the connection was reset") from None
            # A server that closes without having read the request resets the connection.
            log.warning("%s: the connection was reset, perhaps before its stream ended", self.name)
            return b""
        except (OSError, ValueError) as error:  # the latter for one that was closed meanwhile
            raise InputError(f"{self.name}: the connection broke ({error})") from error
        self._has_come = True
        return data

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):  # the other end was first
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


def connect_source(host: str, port: int, token: str = "") -> TcpSource:
    """Connect to a server and read its stream's metadata.

    Parameters
    ----------
    host : str
    port : int
    token : str
        For a sender that authenticates its receivers; nothing else is sent it.

    Raises
    ------
    PeerError
        When the connection is refused.
    InputError
        When the server does not send DBN.
    """
    name = format_address(host, port)
    try:
        connection = socket.create_connection((host, port), _CONNECT_TIMEOUT_S)
        tls = client_tls("replay-dbn")
        if tls is not None:
            connection = tls.context.wrap_socket(connection, server_hostname=tls.name(host))
        connection.settimeout(None)
        notice_loss(connection)
        # Only senders of mdtool speak TLS, which has bytes of its own before the stream's.
        if tls is not None or not select.select([connection], [], [], FIRST_WORD_S)[0]:
            connection.sendall(encode_request(FromLive(), token))
    except OSError as error:
        reason = reason_of(error)
        raise PeerError(f"{name}: {reason}; is a sender running there?") from error
    return TcpSource(name, connection)
