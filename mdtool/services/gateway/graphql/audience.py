"""Who follows one thing, each with the fields of it that they asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator
from typing import Any, Protocol

from mdtool.core.errors import MdtoolError
from mdtool.services.gateway.graphql.plan import RootField
from mdtool.services.gateway.hub import Follower, Hub, Subscriber
from mdtool.wire.graphql import NEXT_TAIL, next_head


class Operation(Protocol):
    """A subscription of a client's."""

    @property
    def id(self) -> str:
        """What the client calls it."""
        ...

    @property
    def subscriber(self) -> Subscriber:
        """Where its messages go."""
        ...

    def fail(self, error: MdtoolError) -> None:
        """End, telling the client why."""
        ...


class Audience:
    """Those who follow one thing: each row of it is encoded once for all who ask for the same.

    Parameters
    ----------
    hub : Hub
        Through which they are told.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._operations: dict[RootField, dict[Operation, Follower]] = {}

    def __bool__(self) -> bool:
        return bool(self._operations)

    @contextlib.contextmanager
    def joined(
        self, field: RootField, operation: Operation, row: Any, state: Hashable = None
    ) -> Iterator[None]:
        """Have an operation told of the thing within the block, of `row` at once if there is one.

        Parameters
        ----------
        field : RootField
            What the operation asks of it.
        operation : Operation
        row : object or None
        state : hashable
            What `row` is the latest of, as in `tell`.
        """
        head = next_head(operation.id)
        follower = self._hub.follow((self, field), operation.subscriber, head)
        self._operations.setdefault(field, {})[operation] = follower
        try:
            if row is not None:
                follower.send(field.response_of(row) + NEXT_TAIL, state)
            yield
        finally:
            operations = self._operations[field]
            self._hub.leave((self, field), operations.pop(operation))
            if not operations:
                del self._operations[field]

    def tell(self, row: Any, state: Hashable = None) -> None:
        """Tell everybody of a row, the latest of a state."""
        for field in self._operations:
            self._hub.publish((self, field), field.response_of(row) + NEXT_TAIL, state)

    def fail(self, error: MdtoolError) -> None:
        """End every operation."""
        for operation in [each for same in self._operations.values() for each in same]:
            operation.fail(error)
