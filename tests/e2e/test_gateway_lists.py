"""Arrays of every row: encoded in turns, once for all requests between two changes."""

from __future__ import annotations

import asyncio

import pytest

from mdtool.services.gateway.protocols.rest_v1 import AT_ONCE, RestV1, encode_in_turns
from tests.support.gateways import connected, gateway_of


async def test_nothing_is_encoded_as_nothing():
    assert await encode_in_turns([], b"%d".__mod__) == b""


@pytest.mark.parametrize("n", [1, AT_ONCE, AT_ONCE + 1, 4 * AT_ONCE])
async def test_rows_are_encoded_in_order_and_other_tasks_run_in_between(n):
    encoding = asyncio.create_task(encode_in_turns(range(n), b"%d".__mod__))
    turns = 0
    while not encoding.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= n / AT_ONCE
    assert encoding.result() == b",".join(b"%d" % row for row in range(n))


async def test_an_array_is_encoded_once_until_a_row_changes(monkeypatch, source):
    lists = []
    answer_list = RestV1._list

    async def noted(rest, client, name, encode):
        def counted(row):
            lists[-1] += 1
            return encode(row)

        lists.append(0)
        return await answer_list(rest, client, name, counted)

    monkeypatch.setattr(RestV1, "_list", noted)
    async with gateway_of(source.address) as client:
        await connected(client)
        for _ in range(2):
            await client.answer("/api/v1/marketdata")
        async with client.ws_connect("/ws/marketdata?symbol=AAPL") as socket:
            await socket.receive_json()
            source.trade("AAPL", 190.0, 1)
            await socket.receive_json()
        await client.answer("/api/v1/marketdata")
    assert lists == [1, 0, 1]
