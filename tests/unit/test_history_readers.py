"""Threads that read a store: requests are served, rejected or abandoned in time."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mdtool.adapters import stores
from mdtool.adapters.market import UnansweredError, UnavailableError
from mdtool.adapters.stores.errors import StoreError, StoreInterruptedError, StoreUnavailableError
from mdtool.core.errors import PeerError
from mdtool.services.gateway import history as module
from mdtool.services.gateway.history import Readers
from tests.reference.trade_history import STORES, PlainStore

SOON_S = 0.02
EVER_S = 60.0


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setitem(stores.SCHEMES, "plain", "tests.reference.trade_history")
    monkeypatch.setitem(STORES, "it", PlainStore())
    monkeypatch.setattr(module, "_CLOSE_S", EVER_S)
    STORES["it"].add("AAPL", 1, 1, 1)
    return STORES["it"]


def symbols(history):
    return history.symbols()


async def ask_for_too_long(readers, question):
    """Ask until it takes too long for the question itself, and not for want of a thread."""
    has_begun = threading.Event()

    def asked(history):
        has_begun.set()
        return question(history)

    while not has_begun.is_set():
        with pytest.raises(UnansweredError, match="plain it did not answer in time"):
            await readers.request(asked, SOON_S)


async def test_a_question_is_answered_in_another_thread(store):
    async with Readers("plain:it") as readers:
        assert readers.address == "plain it"
        assert await readers.request(symbols, EVER_S) == [("AAPL", 1, 1, 0)]
        assert (
            await readers.request(lambda _: threading.get_ident(), EVER_S) != threading.get_ident()
        )


async def test_as_many_are_read_at_once_as_there_are_threads(store):
    met = threading.Barrier(3, timeout=EVER_S)
    async with Readers("plain:it", threads=3) as readers:
        asked = [readers.request(lambda _: met.wait(), EVER_S) for _ in range(3)]
        assert sorted(await asyncio.gather(*asked)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (StoreUnavailableError("it is away"), UnavailableError),
        (StoreInterruptedError("it was ended"), UnansweredError),
        (StoreError("it is torn"), PeerError),
        (ZeroDivisionError("it is not foreseen"), ZeroDivisionError),
    ],
)
async def test_what_goes_wrong_is_raised_where_it_was_asked(store, error, kind):
    async with Readers("plain:it", threads=1) as readers:
        store.error = error
        with pytest.raises(kind) as raised:
            await readers.request(symbols, EVER_S)
        assert type(raised.value) is kind
        store.error = None
        assert await readers.request(symbols, EVER_S)


async def test_what_takes_too_long_is_interrupted_and_frees_its_thread(store):
    async with Readers("plain:it", threads=1) as readers:
        store.hold(is_held=True)
        await ask_for_too_long(readers, symbols)
        await asyncio.to_thread(store.wait_for_readers, 0)
        store.hold(is_held=False)
        assert await readers.request(symbols, EVER_S)
        assert store.interrupted == 1


async def test_what_nobody_waits_for_is_interrupted(store):
    async with Readers("plain:it", threads=1) as readers:
        store.hold(is_held=True)
        asking = asyncio.create_task(readers.request(symbols, EVER_S))
        await asyncio.to_thread(store.wait_for_readers, 1)
        asking.cancel()
        await asyncio.to_thread(store.wait_for_readers, 0)
        assert store.interrupted == 1
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_what_was_given_up_before_a_thread_took_it_is_never_read(store):
    asked = []
    async with Readers("plain:it", threads=1) as readers:
        store.hold(is_held=True)
        held = asyncio.create_task(readers.request(symbols, EVER_S))
        await asyncio.to_thread(store.wait_for_readers, 1)
        with pytest.raises(UnansweredError):
            await readers.request(asked.append, SOON_S)
        store.hold(is_held=False)
        assert await held
        assert await readers.request(symbols, EVER_S)
        assert asked == []
        assert store.interrupted == 0


async def test_an_interrupt_that_comes_between_two_statements_is_repeated(store):
    interrupts = threading.Semaphore(0)

    def question(history):
        history.interrupt = interrupts.release
        for _ in range(3):
            assert interrupts.acquire(timeout=EVER_S)
        raise StoreInterruptedError("at last")

    async with Readers("plain:it", threads=1) as readers:
        await ask_for_too_long(readers, question)
        assert await readers.request(lambda _: True, EVER_S)


async def test_an_interrupt_that_fails_is_repeated_too(store):
    interrupts = []

    def question(history):
        ended = threading.Event()

        def interrupt():
            interrupts.append(len(interrupts))
            if len(interrupts) == 2:
                ended.set()
            raise StoreUnavailableError("the server is away")

        history.interrupt = interrupt
        assert ended.wait(EVER_S)

    async with Readers("plain:it", threads=1) as readers:
        await ask_for_too_long(readers, question)
        assert await readers.request(lambda _: True, EVER_S)
    assert interrupts[:2] == [0, 1]


async def test_too_many_requests_are_rejected_at_once(store, monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    async with Readers("plain:it", threads=1) as readers:
        store.hold(is_held=True)
        held = [asyncio.create_task(readers.request(symbols, EVER_S))]
        await asyncio.to_thread(store.wait_for_readers, 1)
        held += [asyncio.create_task(readers.request(symbols, EVER_S)) for _ in range(2)]
        await asyncio.sleep(0)  # they are asked, in this order
        with pytest.raises(UnavailableError, match="2 requests are waiting"):
            await readers.request(symbols, EVER_S)
        store.hold(is_held=False)
        assert await asyncio.gather(*held) == [[("AAPL", 1, 1, 0)]] * 3


async def test_closing_ends_what_is_read_and_what_waits(store):
    async with Readers("plain:it", threads=1) as readers:
        store.hold(is_held=True)
        asked = [asyncio.create_task(readers.request(symbols, EVER_S)) for _ in range(3)]
        await asyncio.to_thread(store.wait_for_readers, 1)
        for task in asked:
            task.cancel()
    assert store.interrupted == 1
    assert not [thread for thread in readers._threads if thread.is_alive()]
    assert all(task.cancelled() for task in asked)


async def test_a_thread_that_cannot_be_ended_does_not_hold_up_the_rest(store, monkeypatch):
    monkeypatch.setattr(module, "_CLOSE_S", SOON_S)
    hangs = threading.Event()
    async with Readers("plain:it", threads=2) as readers:
        await ask_for_too_long(readers, lambda _: hangs.wait(EVER_S))
        assert await readers.request(symbols, EVER_S)
    assert any(thread.is_alive() for thread in readers._threads)
    hangs.set()
    for thread in readers._threads:
        await asyncio.to_thread(thread.join, EVER_S)
        assert not thread.is_alive()
