"""Order books over GraphQL, from a real receiver: queried, followed, unavailable."""

from __future__ import annotations

import contextlib

import pytest

from mdtool.wire.graphql import SUBPROTOCOL
from tests.support.book_services import receiver_of, sender_of
from tests.support.gateways import gateway_of
from tests.support.recordings import record

NOBODY = "127.0.0.1:1"
BOOK = """{
    symbol timestamp bidLevels askLevels orders partial
    bids { price size orders }
    asks { price size orders }
}"""


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    path = tmp_path_factory.mktemp("day") / "day.dbn"
    record(path, 5_000)
    return path


@contextlib.asynccontextmanager
async def stack_of(path):
    """A receiver, and a client of the gateway in front of it and of a sender."""
    async with sender_of(path) as sender, receiver_of(sender.data) as receiver:
        addresses = {"sender": sender.address, "receiver": receiver.address}
        async with gateway_of(NOBODY, **addresses) as client:
            yield receiver, client


async def start(receiver, client) -> None:
    async with client.post("/api/start-streaming") as response:
        assert response.status == 200
    await receiver.until(state="done")


async def answer_of(client, query: str) -> dict:
    async with client.post("/graphql", json={"query": query}) as response:
        return await response.json()


def expected_of(line: dict) -> dict:
    """The GraphQL row of a receiver's book."""
    stats = line["stats"]

    def levels(side: str) -> list[dict]:
        return [
            {
                "price": float(level["price"]),
                "size": str(level["size"]),
                "orders": level["count"],
            }
            for level in line["levels"][side]
        ]

    return {
        "symbol": line["symbol"],
        "timestamp": str(int(line["timestamp_ns"]) // 10**6),
        "bidLevels": stats["bid_levels"],
        "askLevels": stats["ask_levels"],
        "orders": stats["total_orders"],
        "partial": line["partial"],
        "bids": levels("bids"),
        "asks": levels("asks"),
    }


async def test_a_book_is_the_receivers_to_the_requested_depth(day):
    async with stack_of(day) as (receiver, client):
        await start(receiver, client)
        for depth in (1, 3, 100):
            (line,) = await receiver.lines(f"?last=true&symbols=AAPL&depth={depth}")
            answer = await answer_of(client, f'{{ book(symbol: " aapl", depth: {depth}) {BOOK} }}')
            assert answer == {"data": {"book": expected_of(line)}}
            assert len(answer["data"]["book"]["bids"]) <= depth


async def test_a_symbol_without_a_book_is_null(day):
    async with stack_of(day) as (receiver, client):
        await start(receiver, client)
        answer = await answer_of(client, '{ book(symbol: "NONE") { partial } }')
        assert answer == {"data": {"book": None}}
        answer = await answer_of(client, '{ book(symbol: "AAPL,MSFT") { partial } }')
        assert answer == {"data": {"book": None}}


@pytest.mark.parametrize(
    "arguments", ['symbol: ""', 'symbol: "A", depth: 0', 'symbol: "A", depth: 101']
)
async def test_bad_arguments_are_the_clients_error(day, arguments):
    async with stack_of(day) as (_, client):
        answer = await answer_of(client, f"{{ book({arguments}) {{ partial }} }}")
        assert answer["data"] == {"book": None}
        assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


async def test_a_receiver_that_is_idle_or_unavailable_is_an_error(day):
    async with stack_of(day) as (_, client):
        answer = await answer_of(client, '{ book(symbol: "AAPL") { partial } }')
        assert answer["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
        assert "nothing is processed yet" in answer["errors"][0]["message"]
    async with gateway_of(NOBODY, receiver=NOBODY) as client:
        answer = await answer_of(client, '{ book(symbol: "AAPL") { partial } }')
        assert answer["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
        assert NOBODY in answer["errors"][0]["message"]


async def test_another_program_in_the_receivers_place_is_an_error(day):
    async with (
        gateway_of(NOBODY) as odd,
        gateway_of(NOBODY, receiver=f"{odd.host}:{odd.port}") as client,
    ):
        answer = await answer_of(client, '{ book(symbol: "AAPL") { partial } }')
        assert answer["errors"][0]["extensions"]["code"] in {"BAD_GATEWAY", "UNAVAILABLE"}


async def test_a_book_is_followed_before_it_exists(day):
    query = f'subscription {{ book(symbol: "AAPL", depth: 2) {BOOK} }}'
    async with (
        stack_of(day) as (receiver, client),
        client.ws_connect("/graphql", protocols=[SUBPROTOCOL]) as socket,
    ):

        async def follow(id_: str) -> None:
            payload = {"query": query}
            await socket.send_json({"id": id_, "type": "subscribe", "payload": payload})

        await socket.send_json({"type": "connection_init"})
        await socket.receive_json()
        await follow("1")
        await follow("2")
        await start(receiver, client)
        (line,) = await receiver.lines("?last=true&symbols=AAPL&depth=2")
        expected = {"data": {"book": expected_of(line)}}
        waiting = {"1", "2"}
        while waiting:
            message = await socket.receive_json()
            if message["payload"] == expected:
                waiting.discard(message["id"])
        await follow("3")
        assert await socket.receive_json() == {"id": "3", "type": "next", "payload": expected}
