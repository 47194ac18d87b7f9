"""Two gateways behind HAProxy, restarted one after the other while clients are served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import time
from statistics import median

from aiohttp import (
    ClientError,
    ClientSession,
    CookieJar,
    DummyCookieJar,
    TCPConnector,
    WSMsgType,
)

from mdtool.core.config import variable
from mdtool.wire.stomp import StompDecoder, Version, encode
from mdtool.wire.websocket import CloseCode
from tests.support.aggregators import aggregator, message, tick
from tests.support.gateways import connected, gateway_of
from tests.support.processes import ChildProcess
from tests.support.proxies import free_port, proxy
from tests.support.waiting import bounded

DRAIN_S = 3
"""HAProxy notices within two seconds that a gateway is not ready."""
NAMES = ("one", "two")
READERS = 4
FOLLOWERS = 12


class Follower:
    """A client of STOMP that reconnects as soon as its socket is closed."""

    def __init__(self, session) -> None:
        self._session = session
        self.close = 0.0
        """The price that it was told last."""
        self.codes: list[int] = []
        self.away_s: list[float] = []
        """How long it was without the state, each time that its socket was closed."""

    async def run(self, told):
        closed_s = None
        while True:
            async with self._session.ws_connect("/ws/websocket") as socket:
                await socket.send_bytes(encode("CONNECT", {"accept-version": "1.2", "host": "a"}))
                topic = {"id": "0", "destination": "/topic/market-data/AAPL"}
                await socket.send_bytes(encode("SUBSCRIBE", topic))
                decoder = StompDecoder()
                decoder.version = Version.V1_2
                async for data in socket:
                    assert data.type is WSMsgType.TEXT
                    decoder.feed(data.data.encode())
                    while (frame := decoder.next_frame()) is not None:
                        if frame.command != "MESSAGE":
                            continue
                        if closed_s is not None:
                            self.away_s.append(time.monotonic() - closed_s)
                            closed_s = None
                        self.close = json.loads(frame.body)["close"]
                        told.set()
            closed_s = time.monotonic()
            self.codes.append(socket.close_code)


async def read(session, statuses):
    """Request one after the other."""
    while True:
        try:
            async with session.get("/api/v2/aggregates/AAPL") as response:
                await response.read()
                statuses.append(response.status)
        except ClientError as error:
            statuses.append(repr(error))


async def answers(port):
    """Wait until the proxy listens."""
    async with ClientSession(f"http://127.0.0.1:{port}") as session:
        while True:
            with contextlib.suppress(ClientError):
                async with session.get("/readyz") as response:
                    if response.status == 200:
                        return


async def serves(session, name):
    """Wait until the proxy sends requests to a gateway."""
    while True:
        async with session.get("/livez") as response:
            if response.status == 200 and response.cookies["mdtool"].value == name:
                return


@contextlib.asynccontextmanager
async def proxied_gateways(folder):
    """A market, the port of HAProxy before two gateways of it, these, and what starts one again."""
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(bounded())
        market = await stack.enter_async_context(aggregator())
        await market.send(message(0, [tick(100)], ["AAPL"]))
        port, *ports = (free_port(stack) for _ in range(3))

        async def start(number):
            own = contextlib.AsyncExitStack()
            settings = {"port": ports[number], "proxies": 1, "memory_requests_per_s": 1_000_000}
            client = await own.enter_async_context(
                gateway_of(market.address, drains=True, **settings)
            )
            await connected(client)
            return own

        gateways = [await start(number) for number in range(2)]
        tls = "bind :443 ssl crt /etc/ssl/mdtool/mdtool.pem alpn h2,http/1.1"
        replaced = {
            tls: f"bind 127.0.0.1:{port}",
            "127.0.0.1:8080": f"127.0.0.1:{ports[0]}",
            "127.0.0.1:8090": f"127.0.0.1:{ports[1]}",
        }
        command = proxy("haproxy-gateways.cfg", folder, replaced)
        process = stack.enter_context(ChildProcess(command, stderr=subprocess.PIPE))
        stack.callback(process.terminate)
        await answers(port)
        yield market, port, gateways, start
        for each in gateways:
            await each.aclose()


async def test_no_request_fails_while_gateways_are_restarted(tmp_path, monkeypatch):
    monkeypatch.setenv(variable("stop", "drain_s"), str(DRAIN_S))
    async with (
        contextlib.AsyncExitStack() as stack,
        proxied_gateways(tmp_path) as (market, port, gateways, start),
    ):
        session = await stack.enter_async_context(
            ClientSession(
                f"http://127.0.0.1:{port}",
                connector=TCPConnector(limit=0),
                cookie_jar=DummyCookieJar(),
            )
        )
        statuses, told = [], asyncio.Event()
        followers = [Follower(session) for _ in range(FOLLOWERS)]
        work = [asyncio.create_task(read(session, statuses)) for _ in range(READERS)]
        work += [asyncio.create_task(each.run(told)) for each in followers]

        async def all_are_told(price):
            while not all(each.close == price for each in followers):
                assert not any(task.done() for task in work)
                told.clear()
                await told.wait()

        await all_are_told(1.0)
        for number in range(2):
            await gateways[number].aclose()  # it drains meanwhile
            price = 200 + number * 100
            await market.send(message(number + 1, [tick(price, at_s=number + 1)], ["AAPL"]))
            await all_are_told(price / 100)
            gateways[number] = await start(number)
            await serves(session, NAMES[number])
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await session.close()
    assert set(statuses) == {200}
    assert {code for each in followers for code in each.codes} == {CloseCode.GOING_AWAY}
    away_s = sorted(seconds for each in followers for seconds in each.away_s)
    assert away_s
    longest = f"{median(away_s):.3f} s, at the longest {away_s[-1]:.3f} s"
    print(f"{len(statuses)} requests; {len(away_s)} times back on the state, after {longest}")


async def test_a_session_of_sockjs_stays_at_its_gateway_by_a_cookie(tmp_path):
    texts = [
        encode("CONNECT", {"accept-version": "1.2"}).decode(),
        encode("SUBSCRIBE", {"id": "0", "destination": "/topic/market-data/AAPL"}).decode(),
    ]
    async with proxied_gateways(tmp_path) as (_, port, _, _):
        path, at = "/ws/000/s1", f"http://127.0.0.1:{port}"
        async with (
            ClientSession(at, cookie_jar=CookieJar(unsafe=True)) as client,
            client.post(f"{path}/xhr_streaming") as stream,
        ):
            assert stream.cookies["mdtool"].value in NAMES
            async with client.post(f"{path}/xhr_send", data=json.dumps(texts)) as sent:
                assert sent.status == 204
            received = b""
            while b"MESSAGE" not in received:
                received += await stream.content.readline()
            # Without the cookie requests go to the gateway with fewer connections, the other one.
            async with (
                ClientSession(at, cookie_jar=DummyCookieJar()) as stranger,
                stranger.post(f"{path}/xhr_send", data=json.dumps(texts)) as sent,
            ):
                assert sent.status == 404
