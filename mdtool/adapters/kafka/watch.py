"""Whether the topics that a service works on are the same still."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final, NoReturn

from mdtool.adapters.kafka.client import KafkaError, KafkaException, admin, error_of
from mdtool.adapters.kafka.topics import Identity, Topics, describe
from mdtool.core.errors import PeerError
from mdtool.core.lifecycle import first_error

_LOOK_S: Final = 1.0
_ANSWER_S: Final = 5.0
_LOOKS: Final = 3
"""How often in a row a topic is missed before it is gone: a server that starts may not know it."""


@contextlib.asynccontextmanager
async def watched(topics: Topics) -> AsyncIterator[None]:
    """Cancel the block, and raise PeerError from it, when a topic is not the same any more.

    What a service holds of a topic, offsets above all, says nothing of another of the same name,
    which it would read, or write, as if it went on; nor are a symbol's ticks where they were once
    there are more partitions. Servers that are away are waited for.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(_watch(topics), name=f"topics of {topics.address}")
            yield
            watch.cancel()
    except ExceptionGroup as group:
        raise first_error(group) from group


async def _watch(topics: Topics) -> NoReturn:
    client = admin(topics.address)
    names = list(topics.identities)
    missed: Counter[str] = Counter()
    asked = describe(client, names, _ANSWER_S)
    while True:
        await asyncio.sleep(_LOOK_S)
        # Nothing of the loop's waits for answers, for they may come when it is closed.
        if not all(answer.done() for answer in asked.values()):
            continue
        for name, answer in asked.items():
            try:
                now = Identity.of(answer.result())
            except KafkaException as error:
                if error_of(error).code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    missed[name] += 1
            else:
                missed[name] = 0
                if now != topics.identities[name]:
                    raise _ended(topics, name, _difference(topics.identities[name], now))
            if missed[name] == _LOOKS:
                raise _ended(topics, name, "was deleted")
        asked = describe(client, names, _ANSWER_S)


def _difference(before: Identity, now: Identity) -> str:
    if now.topic_id != before.topic_id:
        return "was deleted and made anew"
    return f"has {now.partitions} partitions now, not {before.partitions}"


def _ended(topics: Topics, name: str, what: str) -> PeerError:
    return PeerError(
        f"{topics.address}: topic {name} {what}, so that nothing can go on; start again"
    )
