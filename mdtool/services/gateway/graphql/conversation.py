"""One client's side of graphql-transport-ws: what it said so far, and its operations."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from mdtool.core.errors import MdtoolError
from mdtool.services.gateway.graphql.errors import (
    TOO_MANY,
    DocumentError,
    ErrorObject,
    encode_errors,
    field_error,
    request_error,
)
from mdtool.services.gateway.graphql.execution import Executor, Prepared
from mdtool.services.gateway.graphql.live import Source
from mdtool.services.gateway.graphql.plan import RootField
from mdtool.services.gateway.outbox import Outbox
from mdtool.wire.graphql import (
    CONNECTION_ACK,
    NEXT_TAIL,
    PONG,
    CloseCode,
    Complete,
    MessageError,
    Subscribe,
    complete_message,
    decode_message,
    error_message,
    next_head,
)

MAX_OPERATIONS: Final = 100
"""Of one client at once."""


class Conversation:
    """Takes a client's messages, and runs its operations.

    Parameters
    ----------
    outbox : Outbox
        Where the answers go.
    executor : Executor
        Runs queries.
    sources : mapping
        Where each field of `Subscription` gets its rows.
    tasks : asyncio.TaskGroup
        Where queries run, so that the next message need not wait for them.

    Attributes
    ----------
    is_open : bool
        Whether the client has said what it must say first.
    """

    def __init__(
        self,
        outbox: Outbox,
        executor: Executor,
        sources: Mapping[str, Source],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self.is_open = False
        self._outbox = outbox
        self._executor = executor
        self._sources = sources
        self._tasks = tasks
        self._ends: dict[str, Callable[[], object]] = {}
        """What ends each operation, by its id."""

    def take(self, data: object) -> None:
        """Take what a WebSocket message holds.

        Raises
        ------
        MessageError
            When the protocol has no such message, or not now.
        """
        message = decode_message(data)
        if isinstance(message, Subscribe):
            self._begin(message)
        elif isinstance(message, Complete):
            self._end(message.id)
        elif message.kind == "connection_init":
            if self.is_open:
                reason = "Too many initialisation requests"
                raise MessageError(CloseCode.TOO_MANY_INITIALISATIONS, reason)
            self.is_open = True
            self._outbox.post(CONNECTION_ACK)
        elif message.kind == "ping":
            self._outbox.post(PONG)

    def close(self) -> None:
        """End all operations."""
        for id_ in list(self._ends):
            self._end(id_)

    def fail(self, id_: str, errors: list[ErrorObject]) -> None:
        """End an operation, telling the client why."""
        self._end(id_)
        self._outbox.post(error_message(id_, encode_errors(errors)))

    def _begin(self, message: Subscribe) -> None:
        id_ = message.id
        if not self.is_open:
            raise MessageError(CloseCode.UNAUTHORIZED, "Unauthorized")
        if id_ in self._ends:
            raise MessageError(CloseCode.ID_IN_USE, f"Subscriber for {id_} already exists")
        if len(self._ends) == MAX_OPERATIONS:
            reason = f"{MAX_OPERATIONS} operations are under way"
            self.fail(id_, [request_error(reason, TOO_MANY)])
            return
        try:
            prepared = self._executor.prepare(message.request)
        except DocumentError as error:
            self.fail(id_, error.errors)
            return
        if prepared.operation.is_subscription:
            self._follow(id_, prepared)
        else:
            self._ends[id_] = self._tasks.create_task(self._answer(id_, prepared)).cancel

    def _end(self, id_: str) -> None:
        """End an operation; a client may name one that has ended in the meantime."""
        if end := self._ends.pop(id_, None):
            end()

    async def _answer(self, id_: str, prepared: Prepared) -> None:
        """Run a query."""
        try:
            response = await self._executor.query(prepared)
        except DocumentError as error:
            del self._ends[id_]
            self.fail(id_, error.errors)
            return
        del self._ends[id_]
        self._outbox.post(next_head(id_) + response.body + NEXT_TAIL)
        self._outbox.post(complete_message(id_))

    def _follow(self, id_: str, prepared: Prepared) -> None:
        """Begin a subscription."""
        (field,), (arguments,) = prepared.fields, prepared.arguments
        operation = _Subscription(id_, self._outbox, field, self)
        stack = contextlib.ExitStack()
        self._ends[id_] = stack.close
        try:
            if isinstance(arguments, Exception):
                raise arguments
            stack.enter_context(self._sources[field.name].following(field, operation, arguments))
        except MdtoolError as error:
            operation.fail(error)


@dataclass(frozen=True, eq=False, slots=True)
class _Subscription:
    """See `audience.Operation`."""

    id: str
    subscriber: Outbox
    field: RootField
    conversation: Conversation

    def fail(self, error: MdtoolError) -> None:
        self.conversation.fail(self.id, [field_error(error, self.field)])
