"""Threads that read a store, each over its own connection, and are got free when it is slow."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Generic, Self, TypeVar

from mdtool.adapters.aggregator import UnansweredError, UnavailableError
from mdtool.adapters.stores import open_history
from mdtool.adapters.stores.errors import (
    StoreError,
    StoreInterruptedError,
    StoreUnavailableError,
)
from mdtool.adapters.stores.port import TradeHistory
from mdtool.core.errors import PeerError

T = TypeVar("T")

THREADS: Final = 4
MAX_WAITING: Final = 1_024
"""Questions that no thread has taken up yet."""
_INTERRUPT_EVERY_S: Final = 0.02
"""An interrupt ends nothing between two statements of one question, and is repeated."""
_CLOSE_S: Final = 1.0
"""How long threads may take to end; one that hangs in the kernel ends with the process."""


class Readers:
    """Asks a store questions that only read. An async context manager, which owns the threads.

    Parameters
    ----------
    url : str
        The store's. It need not be there yet.
    threads : int
        How many questions are read at once.

    Raises
    ------
    ConfigError
        When there is no such kind of store, or what it needs is not installed.
    """

    def __init__(self, url: str, threads: int = THREADS) -> None:
        self._histories = [open_history(url) for _ in range(threads)]
        self._waiting: queue.Queue[_Question[Any] | None] = queue.Queue(MAX_WAITING)
        self._given_up: queue.SimpleQueue[_Question[Any] | None] = queue.SimpleQueue()
        self._asked: set[_Question[Any]] = set()
        """What is waited for."""
        self._threads: list[threading.Thread] = []
        self._is_closed = False

    @property
    def address(self) -> str:
        """What the store is, for people, without secrets."""
        return self._histories[0].address

    async def __aenter__(self) -> Self:
        self._threads = [_thread(self._interrupt)]
        self._threads += [_thread(self._read, history) for history in self._histories]
        for thread in self._threads:
            thread.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._is_closed = True
        for asked in self._asked:  # handlers may have been cancelled, and not know it yet
            self._give_up(asked)
        self._given_up.put(None)
        with contextlib.suppress(queue.Full):  # then there are enough to wake every thread
            for _ in self._histories:
                self._waiting.put_nowait(None)
        await asyncio.to_thread(self._join)

    async def ask(self, question: Callable[[TradeHistory], T], timeout_s: float) -> T:
        """Return what a question comes to, which one of the threads asks of its history.

        A question that takes too long, or that nobody waits for any more, is interrupted.

        Raises
        ------
        UnansweredError
            When it takes longer than `timeout_s`, waiting for a thread included.
        UnavailableError
            When the store is away, or too many questions wait.
        PeerError
            When the store is broken.
        """
        asked = _Question(question, asyncio.get_running_loop())
        try:
            self._waiting.put_nowait(asked)
        except queue.Full:
            raise UnavailableError(
                f"{self.address} has {MAX_WAITING:,} questions waiting"
            ) from None
        self._asked.add(asked)
        try:
            async with asyncio.timeout(timeout_s):
                return await asked.answer
        except (TimeoutError, StoreInterruptedError) as error:
            raise UnansweredError(f"{self.address} did not answer in time") from error
        except StoreUnavailableError as error:
            raise UnavailableError(str(error)) from error
        except StoreError as error:
            raise PeerError(str(error)) from error
        finally:
            self._asked.discard(asked)
            if asked.answer.cancelled():
                self._give_up(asked)

    def _give_up(self, asked: _Question[Any]) -> None:
        asked.is_given_up = True
        self._given_up.put(asked)

    def _read(self, history: TradeHistory) -> None:
        """Answer questions, in a thread of its own."""
        with history:
            while (asked := self._waiting.get()) is not None and not self._is_closed:
                asked.put_to(history)

    def _interrupt(self) -> None:
        """End what is given up, in a thread of its own, until there is no more to come."""
        reading: list[_Question[Any]] = []
        is_closing = False
        while reading or not is_closing:
            try:
                asked = self._given_up.get(timeout=_INTERRUPT_EVERY_S if reading else None)
            except queue.Empty:
                pass
            else:
                if asked is None:
                    is_closing = True
                else:
                    reading.append(asked)
            reading = [each for each in reading if each.interrupt()]

    def _join(self) -> None:
        ends_s = time.monotonic() + _CLOSE_S
        for thread in self._threads:
            thread.join(max(0.0, ends_s - time.monotonic()))


def _thread(work: Callable[..., None], *arguments: object) -> threading.Thread:
    # It holds up no exit: a file system may keep a thread for as long as it likes.
    return threading.Thread(target=work, args=arguments, name="history", daemon=True)


class _Question(Generic[T]):
    """One question, on its way from the loop that asks it to the thread that reads, and back.

    Attributes
    ----------
    answer : Future
        Cancelled when nobody waits for it any more.
    is_given_up : bool
        Whether it is not to be read, or not any longer.
    """

    def __init__(
        self, question: Callable[[TradeHistory], T], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.answer: asyncio.Future[T] = loop.create_future()
        self.is_given_up = False
        self._loop = loop
        self._question = question
        self._lock = threading.Lock()
        """Held while an interrupt is under way, so that it never meets the question after this."""
        self._history: TradeHistory | None = None

    def put_to(self, history: TradeHistory) -> None:
        """Ask it, in a reader's thread, unless it was given up before."""
        with self._lock:
            if self.is_given_up:
                return
            self._history = history
        try:
            settle = functools.partial(self._resolve, self._question(history))
        except Exception as error:  # noqa: BLE001 - it is raised where the question was asked
            settle = functools.partial(self._fail, error)
        with self._lock:
            self._history = None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(settle)

    def interrupt(self) -> bool:
        """End what is read of it, and return whether it is still being read."""
        with self._lock:
            if self._history is None:
                return False
            with contextlib.suppress(StoreError):  # as where its server cannot be told to stop
                self._history.interrupt()
            return True

    def _resolve(self, result: T) -> None:
        if not self.answer.done():
            self.answer.set_result(result)

    def _fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
