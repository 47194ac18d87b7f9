"""What a recorded live stream says of records that it lost reaches those who follow a sender."""

from __future__ import annotations

import asyncio

import databento_dbn as dbn
import numpy as np
import pytest

from mdtool.adapters.dbn_tcp import connect_source
from mdtool.adapters.quotes.dbn_stream import DbnQuotes
from mdtool.core.addresses import parse_address
from mdtool.core.descriptors import shortage
from mdtool.core.dtypes import MBO
from mdtool.core.stream_warnings import KINDS, warnings_in
from mdtool.engine.book.rebuild import Rebuild
from mdtool.engine.book.view import totals
from mdtool.engine.simulate import Exchange
from mdtool.wire.dbn_session import FromLive, FromStart
from tests.support.book_services import Heard, connected, receiver_of, sender_of
from tests.support.instruments import batch
from tests.support.recordings import write

EXCHANGE = Exchange(seed=3)
BEFORE = 4_000
ALL = EXCHANGE.generate(8_000)
SLOW = "Warning: slow reading, not keeping pace"
NONE = dict.fromkeys(KINDS, 0)


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """A file whose stream warns and fails between two records, after which no book is cleared."""
    path = tmp_path_factory.mktemp("capture") / "live.dbn"
    write(path, ALL, EXCHANGE.instruments)
    said = bytes(dbn.SystemMsg(ts_event=1, msg="Heartbeat", code=dbn.SystemCode.HEARTBEAT))
    said += bytes(dbn.SystemMsg(ts_event=2, msg=SLOW, code=dbn.SystemCode.SLOW_READER_WARNING))
    said += bytes(dbn.ErrorMsg(ts_event=3, err="Skipped 7 records", is_last=True))
    content = path.read_bytes()
    at = len(content) - (len(ALL) - BEFORE) * MBO.itemsize
    path.write_bytes(content[:at] + said + content[at:])
    return path


async def test_a_receiver_knows_from_where_on_its_books_are_partial(capture):
    async with sender_of(capture) as sender, receiver_of(sender.data) as receiver:
        await sender.start("/start-streaming")
        await receiver.start("/start-processing")
        status = await receiver.until(state="done")
        told = NONE | {"slow_reader": 1, "skipped_records": 1}
        assert (status["warnings"], status["partial"]) == (told, True)
        assert (status["position"], status["records"]) == (len(ALL) + 2, len(ALL))
        _, health = await receiver.ask("/health")
        assert health.pop("accept_pauses") == shortage.pauses
        assert health == {"status": "ok", "state": "done", "partial": True, "warnings": told}
        assert (await sender.status())["warnings"] == told
        _, health = await sender.ask("/health")
        assert health.pop("accept_pauses") == shortage.pauses
        assert health == {"status": "ok", "state": "done", "warnings": told}
        lines = await receiver.lines("?depth=1")
        assert [line["partial"] for line in lines] == [False] * BEFORE + [True] * (
            len(ALL) - BEFORE
        )
        assert all(state["partial"] for state in await receiver.lines("?last=true"))


async def test_those_who_join_later_get_partial_books(capture):
    async with sender_of(capture) as sender:
        await sender.start("/start-streaming")
        async with connected(sender.data, FromStart()) as receiver:
            heard = await receiver.hear(Heard())
        assert sum(len(warnings_in(part)) for part in heard.records) == 2
        async with connected(sender.data, FromLive()) as receiver:
            heard = await receiver.hear(Heard())
    rebuild = Rebuild()
    for part in heard.records:
        rebuild.update(batch(part))
    assert totals(rebuild.books).is_partial


async def test_a_source_over_tcp_has_them_and_goes_on(capture, caplog):
    async with sender_of(capture) as sender:
        await sender.start("/start-streaming")
        with await asyncio.to_thread(connect_source, *parse_address(sender.data)) as source:
            batches = await asyncio.to_thread(list, source)
    assert sum(len(warnings_in(batch.records)) for batch in batches) == 2
    assert np.array_equal(batches[-2].records[-1:], ALL[-1:])
    assert "too fast to follow" not in caplog.text


async def test_quotes_of_the_gateway_are_partial(capture):
    quotes = []
    async with sender_of(capture) as sender:
        following = asyncio.create_task(DbnQuotes(sender.data, quotes.extend).run())
        while not any(quote.is_partial for quote in quotes):
            await sender.ask("/start-streaming", "POST")
            await asyncio.sleep(0.01)
        following.cancel()
