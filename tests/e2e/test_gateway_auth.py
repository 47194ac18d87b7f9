"""Tokens at the gateway: tickets, expiry, revocation, renewal, quotas, and what is no token."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging

import pytest
from aiohttp import WSMsgType, WSServerHandshakeError, web

from mdtool.adapters.audit import AuditConfig, AuditLog
from mdtool.adapters.identity import api_keys, jwt
from mdtool.adapters.identity.config import OPTIONAL, REQUIRED, AuthConfig
from mdtool.core.permissions import Roles
from mdtool.services.http.listening import listening
from mdtool.services.limits import QuotaConfig
from mdtool.services.security import Security
from mdtool.wire.graphql import SUBPROTOCOL
from mdtool.wire.stomp import encode
from mdtool.wire.websocket import CloseCode
from tests.reference.market_source import MarketSource
from tests.support.feed_followers import bearer
from tests.support.gateways import gateway_of
from tests.support.issuers import AUDIENCE, ISSUER, claims, new_key, sign
from tests.support.node_clients import node_script
from tests.support.tokens import ROLES, Keys, required_by_gateways
from tests.support.waiting import bounded

UNAUTHORIZED = 4401


@pytest.fixture
def keys(tmp_path):
    return Keys(tmp_path)


@contextlib.asynccontextmanager
async def gateway(monkeypatch, keys, security, **settings):
    required_by_gateways(monkeypatch, lambda: security)
    async with (
        MarketSource().serving() as source,
        gateway_of(source.address, **settings) as client,
        bounded(),
    ):
        for symbol in ("MSFT", "AAPL"):
            source.trade(symbol, 187.5, 100)
        for symbol in ("MSFT", "AAPL"):
            path = f"/ws/marketdata?symbol={symbol}"
            async with client.ws_connect(path, headers=bearer(keys["all"])) as socket:
                await socket.receive_json()
        yield client


async def ticket(client, token):
    async with client.post("/api/v2/tickets", headers=bearer(token)) as response:
        assert response.status == 200
        assert response.headers["Cache-Control"] == "no-store"
        return (await response.json())["data"]["ticket"]


async def test_a_ticket_opens_one_socket_as_the_principal_that_requested_it(keys, monkeypatch):
    async with gateway(monkeypatch, keys, keys.security()) as client:
        one = await ticket(client, keys["some"])
        path = f"/ws/marketdata?symbol=AAPL&ticket={one}"
        async with client.ws_connect(path) as socket:
            assert (await socket.receive_json())["symbol"] == "AAPL"
        for wrong in (one, "", "A" * 43, "%00"):
            with pytest.raises(WSServerHandshakeError) as caught:
                await client.ws_connect(f"/ws/marketdata?symbol=AAPL&ticket={wrong}")
            assert caught.value.status == 401
        other = await ticket(client, keys["some"])
        status, _ = await client.answer(f"/api/v2/quotes?ticket={other}")
        assert status == 401  # it is for a WebSocket
        for headers in ({}, {"Upgrade": "websocket", "Connection": "Upgrade"}):
            async with client.get(f"/api/v2/quotes?ticket={other}", headers=headers) as response:
                assert response.status == 401
            async with client.post(f"/api/v2/tickets?ticket={other}", headers=headers) as response:
                assert response.status == 401  # else it would be as good as the token
        status, _ = await client.answer("/api/v2/tickets")
        assert status == 405


async def test_a_ticket_is_nobodys_without_a_token_and_ends_with_its_key(keys, monkeypatch):
    security = keys.security(OPTIONAL)
    async with gateway(monkeypatch, keys, security) as client:
        async with client.post("/api/v2/tickets") as response:
            assert response.status == 401
        given = await ticket(client, keys["some"])
        api_keys.revoke(keys.path, "some")
        security._authenticator._keys.reload()
        with pytest.raises(WSServerHandshakeError):
            await client.ws_connect(f"/ws/marketdata?symbol=AAPL&ticket={given}")


async def opened(client, kind, token):
    if kind == "/graphql":
        socket = await client.ws_connect(kind, protocols=[SUBPROTOCOL])
        await socket.send_json({"type": "connection_init", "payload": {"token": token}})
        assert (await socket.receive_json())["type"] == "connection_ack"
    elif kind == "/stream":
        socket = await client.ws_connect(kind)
        await socket.send_json({"op": "auth", "token": token, "id": 1})
        reply = await socket.receive_json()
        assert reply.get("ok"), reply
    elif kind == "/ws/websocket":
        socket = await client.ws_connect(kind)
        headers = {"accept-version": "1.2", "Authorization": f"Bearer {token}"}
        await socket.send_bytes(encode("CONNECT", headers))
        assert (await socket.receive_str()).startswith("CONNECTED")
    else:
        socket = await client.ws_connect(kind, headers=bearer(token), autoping=False)
    return socket


async def renew(socket, kind, token):
    if kind == "/graphql":
        await socket.send_json({"type": "ping", "payload": {"token": token}})
    elif kind == "/ws/websocket":
        headers = {"destination": "/app/auth", "receipt": "renewed"}
        await socket.send_bytes(encode("SEND", headers, token.encode()))
    else:
        await socket.send_json({"op": "auth", "token": token})


async def renewed(socket, kind):
    """Wait until the gateway has taken a token."""
    if kind == "/graphql":
        assert await socket.receive_json() == {"type": "pong"}
    elif kind == "/ws/websocket":
        assert (await socket.receive_str()).startswith("RECEIPT")
    elif kind == "/stream":
        assert (await socket.receive_json())["ok"]
    else:  # which has no answer of its own
        await socket.ping()
        while (message := await socket.receive()).type is WSMsgType.TEXT:
            pass
        assert message.type is WSMsgType.PONG


async def the_end(socket):
    """The message that closes a socket, behind all others."""
    while (message := await socket.receive()).type is WSMsgType.TEXT:
        pass
    return message


SOCKETS = ["/stream", "/graphql", "/ws/websocket", "/ws/marketdata?symbol=NONE"]


@pytest.mark.parametrize("kind", SOCKETS)
async def test_a_revoked_key_closes_its_sockets_and_no_others(kind, keys, monkeypatch):
    async with gateway(monkeypatch, keys, keys.security()) as client:
        socket = await opened(client, kind, keys["some"])
        other = await opened(client, kind, keys["all"])
        api_keys.revoke(keys.path, "some")
        message = await the_end(socket)
        assert socket.close_code == UNAUTHORIZED
        assert "revoked" in message.extra
        assert not other.closed
        await other.close()


@pytest.mark.parametrize("kind", SOCKETS)
async def test_a_newer_token_keeps_a_socket_open(kind, keys, monkeypatch):
    first, second = keys.make("ann", "some"), keys.make("ann", "some")
    async with gateway(monkeypatch, keys, keys.security()) as client:
        socket = await opened(client, kind, first)
        late = await opened(client, kind, first)
        await renew(socket, kind, second)
        await renewed(socket, kind)
        api_keys.revoke(keys.path, first.split("_")[1])
        await the_end(late)
        assert late.close_code == UNAUTHORIZED
        assert not socket.closed
        await socket.close()
        stranger = await opened(client, kind, second)
        await renew(stranger, kind, keys["all"])
        is_closed = kind in {"/graphql", SOCKETS[-1]}
        message = await (the_end(stranger) if is_closed else stranger.receive())
        if kind == "/stream":
            assert "another principal" in message.data
        elif kind == "/ws/websocket":
            assert message.data.startswith("ERROR")
        else:
            assert stranger.close_code == UNAUTHORIZED
        await stranger.close()


async def test_what_is_not_one_bearer_token_is_refused_and_everyone_else_is_served(
    keys, monkeypatch, caplog
):
    good = keys["some"]
    wrong = [
        f"Basic {good}",
        "Bearer",
        "Bearer ",
        f"Bearer {good} {good}",
        f"Bearer {good}\tx",
        good,
        "Bearer " + "A" * 16_000,
        "Bearer mdt_\udcff",
    ]
    async with gateway(monkeypatch, keys, keys.security()) as client:
        for header in wrong:
            async with client.get("/api/v2/quotes", headers={"Authorization": header}) as response:
                assert response.status in {400, 401}, header
                assert good not in await response.text()
        for lines in (
            f"Authorization: Bearer {good}\r\nAuthorization: Bearer {good}",
            f"Authorization: Bearer {good}\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
            f"Authorization: Bearer {good}\r\n X-Folded: 1",
            "Authorization: Bearer " + "A" * 100_000,
            f"Authorization: Bearer {good}" + " " * 100_000 + "x",
            f"Authorization: Bearer {good}\0",
        ):
            reader, writer = await asyncio.open_connection(client.host, client.port)
            request = (
                f"GET /api/v2/quotes HTTP/1.1\r\nHost: x\r\n{lines}\r\nConnection: close\r\n\r\n"
            )
            writer.write(request.encode())
            status = (await reader.readline()).split()[1]
            assert status in {b"400", b"401"}, lines[:80]
            rest = (await reader.read()).decode()
            assert good.split("_", 2)[2] not in rest
            assert "A" * 20 not in rest
            writer.close()
        assert "is not HTTP: Got more than" in caplog.text
        assert good not in caplog.text
        assert "AAAA" not in caplog.text
        async with client.get("/api/v2/quotes", headers=bearer(good)) as response:
            assert response.status == 200
        async with client.get("/livez") as response:
            assert response.status == 200


async def test_without_a_token_clients_have_the_role_anonymous_where_it_is_optional(
    keys, monkeypatch
):
    roles = {**ROLES, "anonymous": {"read": ["MSFT"]}}
    async with gateway(monkeypatch, keys, keys.security(OPTIONAL, roles)) as client:
        _, answer = await client.answer("/api/v2/aggregates")
        assert {row["symbol"] for row in answer["data"]} <= {"MSFT"}
        status, _ = await client.answer("/api/v2/aggregates/AAPL")
        assert status == 404
        async with client.get("/api/v2/aggregates", headers=bearer("mdt_x_x")) as response:
            assert response.status == 401
        empty = {"Authorization": ""}
        async with client.get("/api/v2/aggregates", headers=empty) as response:
            assert response.status == 200
        async with client.ws_connect("/ws/marketdata?symbol=MSFT&ticket=", headers=empty) as socket:
            assert (await socket.receive_json())["symbol"] == "MSFT"
        async with client.ws_connect("/graphql", protocols=["graphql-transport-ws"]) as socket:
            payload = {"Authorization": "", "token": ""}
            await socket.send_json({"type": "connection_init", "payload": payload})
            assert (await socket.receive_json())["type"] == "connection_ack"
        async with client.ws_connect("/ws/websocket", protocols=["v12.stomp"]) as socket:
            await socket.send_str("CONNECT\naccept-version:1.2\nhost:x\nauthorization:\n\n\0")
            assert (await socket.receive_str()).startswith("CONNECTED")


async def test_what_is_sent_beyond_a_quota_of_bytes_waits(keys, monkeypatch):
    roles = {**ROLES, "slow": {"read": ["*"], "quota": "slow"}}
    token, other = keys.make("ann", "slow"), keys.make("ben", "slow")
    security = keys.security(roles=roles, slow=QuotaConfig(bytes_per_s=200))
    path = "/api/v2/aggregates"
    async with gateway(monkeypatch, keys, security) as client, bounded():
        socket = await opened(client, "/stream", token)
        await subscribed(socket, "aggregates", "MSFT")
        while True:
            async with client.get(path, headers=bearer(token)) as response:
                text = await response.text()
                if response.status == 429:
                    break
        assert int(response.headers["Retry-After"]) >= 1
        assert "quota of 200 bytes a second is used up" in text
        async with client.get(path, headers=bearer(other)) as response:
            assert response.status == 200
        await socket.send_json({"op": "ping"})  # its answer comes once there is room
        assert await socket.receive_json() == {"op": "pong"}
        while True:
            async with client.get(path, headers=bearer(token)) as response:
                if response.status == 200:
                    break
        await socket.close()


async def test_what_is_received_beyond_a_quota_of_bytes_is_rejected(keys, monkeypatch):
    roles = {**ROLES, "slow": {"read": ["*"], "quota": "slow"}}
    token, other = keys.make("ann", "slow"), keys.make("ben", "slow")
    security = keys.security(roles=roles, slow=QuotaConfig(bytes_per_s=10_000))
    query = json.dumps({"query": '{ marketData(symbol: "MSFT") { volume } }'}) + " " * 40_000
    async with gateway(monkeypatch, keys, security) as client:
        headers = {**bearer(token), "Content-Type": "application/json"}
        async with client.post("/graphql", data=query, headers=headers) as response:
            assert (await response.json())["data"]["marketData"]
        async with client.get("/api/v2/aggregates", headers=bearer(token)) as response:
            assert response.status == 429
        async with client.get("/api/v2/aggregates", headers=bearer(other)) as response:
            assert response.status == 200


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/stream", json.dumps({"op": "ping", "pad": "x" * 2_000})),
        ("/ws/websocket", "SEND\ndestination:/app/signal\n\n" + "x" * 2_000 + "\0"),
        ("/ws/000/one/websocket", json.dumps(["x" * 2_000])),
        ("/ws/marketdata?symbol=MSFT", "x" * 2_000),
    ],
)
async def test_a_socket_that_sends_far_more_than_its_quota_of_bytes_is_closed(
    keys, monkeypatch, path, message
):
    roles = {**ROLES, "slow": {"read": ["*"], "quota": "slow", "rights": ["signaling"]}}
    token, other = keys.make("ann", "slow"), keys.make("ben", "slow")
    security = keys.security(roles=roles, slow=QuotaConfig(bytes_per_s=100))
    async with gateway(monkeypatch, keys, security) as client:
        socket = await opened(client, path, token)
        async with client.ws_connect("/stream", headers=bearer(other)) as spared:
            await socket.send_str(message)
            while (got := await socket.receive()).type is WSMsgType.TEXT:
                pass
            assert got.data == CloseCode.BEHIND
            assert got.extra.startswith("quota of bytes used up for ")
            await spared.send_json({"op": "ping"})
            assert await spared.receive_json() == {"op": "pong"}


async def subscribed(socket, channel, symbol):
    """Subscribe, and read the answer and the current state."""
    request = {"op": "subscribe", "id": 1, "channel": channel, "symbols": [symbol]}
    await socket.send_json(request)
    assert (await socket.receive_json())["ok"]
    assert (await socket.receive_json())["symbol"] == symbol


@pytest.mark.parametrize("transport", ["websocket", "sockjs:websocket", "sockjs:xhr-streaming"])
async def test_stompjs_shows_what_its_token_may_read(keys, monkeypatch, transport):
    async with gateway(monkeypatch, keys, keys.security()) as client:
        url = f"http://{client.host}:{client.port}"
        arguments = "stomp_client.cjs", url, transport, "1.2", "/topic/market-data/*"
        async with node_script(*arguments, token=keys["some"]) as script:
            assert (await script.event())["event"] == "connected"
            assert (await script.event())["body"]["symbol"] == "AAPL"
            await script.do("disconnect")
            assert await script.event() == {"event": "disconnected"}
        for wrong in ("", "mdt_x_x"):
            async with node_script(*arguments, token=wrong) as script:
                assert (await script.event())["message"].startswith("CONNECT: token: ")
                assert (await script.event())["event"] == "closed"


async def test_graphql_ws_shows_what_its_token_may_read_until_it_is_revoked(keys, monkeypatch):
    async with gateway(monkeypatch, keys, keys.security()) as client:
        url = f"ws://{client.host}:{client.port}/graphql"
        follow = 'subscription { marketData(symbol: "AAPL") { symbol } }'
        async with node_script("graphql_ws.cjs", url, token=keys["some"]) as script:
            await script.do("subscribe", id="a", query=follow)
            assert (await script.event())["result"] == {"data": {"marketData": {"symbol": "AAPL"}}}
            await script.do("subscribe", id="b", query="{ symbols }")
            assert (await script.event())["result"] == {"data": {"symbols": ["AAPL"]}}
            assert await script.event() == {"id": "b", "complete": True}
            api_keys.revoke(keys.path, "some")
            assert await script.event() == {"closed": UNAUTHORIZED}
        async with node_script("graphql_ws.cjs", url) as script:
            await script.do("subscribe", id="a", query="{ symbols }")
            assert await script.event() == {"closed": UNAUTHORIZED}


async def test_a_class_of_quotas_is_each_principals_own(keys, monkeypatch, no_refill):
    roles = {**ROLES, "slow": {"read": ["*"], "quota": "slow"}}
    token, other = keys.make("ann", "slow"), keys.make("ben", "slow")
    security = keys.security(
        roles=roles, slow=QuotaConfig(requests_per_s=3, connections=1, subscriptions=2)
    )
    async with gateway(monkeypatch, keys, security) as client:
        socket = await opened(client, "/stream", token)
        with pytest.raises(WSServerHandshakeError) as caught:
            await client.ws_connect("/ws/marketdata?symbol=AAPL", headers=bearer(token))
        assert caught.value.status == 429
        for number in range(3):
            request = {"op": "subscribe", "id": number, "channel": "quotes", "symbols": ["X"]}
            await socket.send_json(request)
            reply = await socket.receive_json()
            assert reply.get("ok") is (True if number < 2 else None)
        assert reply["error"]["code"] == "limit"
        await socket.send_json({"op": "unsubscribe", "id": 0})
        assert (await socket.receive_json())["ok"]
        await socket.send_json({**request, "id": 9})
        assert (await socket.receive_json())["ok"]
        statuses = []
        for _ in range(6):
            async with client.get("/api/v2/quotes", headers=bearer(token)) as response:
                statuses.append(response.status)
        assert 429 in statuses
        async with client.get("/api/v2/quotes", headers=bearer(other)) as response:
            assert response.status == 200
        await socket.close()


async def test_a_plain_socket_beyond_a_quota_of_subscriptions_is_closed(keys, monkeypatch):
    security = keys.security(default=QuotaConfig(subscriptions=1))
    path = "/ws/marketdata?symbol=AAPL"
    async with gateway(monkeypatch, keys, security) as client:
        async with client.ws_connect(path, headers=bearer(keys["some"])) as first:
            await first.receive_json()
            async with client.ws_connect(path, headers=bearer(keys["some"])) as second:
                message = await second.receive()
                assert message.data == CloseCode.POLICY
                assert message.extra.startswith("limit of 1 subscriptions")
            assert not first.closed
        async with client.ws_connect(path, headers=bearer(keys["all"])) as other:
            assert (await other.receive_json())["symbol"] == "AAPL"


async def test_only_who_has_the_right_may_introspect(keys, monkeypatch):
    query = {"query": "{ __schema { queryType { name } } }"}
    async with gateway(monkeypatch, keys, keys.security()) as client:
        for role, is_allowed in (("all", True), ("some", False)):
            async with client.post("/graphql", json=query, headers=bearer(keys[role])) as response:
                assert ("errors" not in await response.json()) == is_allowed


async def test_decisions_are_logged_without_tokens(keys, monkeypatch, tmp_path):
    security = keys.security()
    path = tmp_path / "audit.jsonl"
    security._audit = AuditLog(AuditConfig(file=str(path)), "gateway")
    async with gateway(monkeypatch, keys, security) as client:
        await client.answer("/api/v2/quotes")
        for role, where in (("some", "/api/v2/quotes"), ("some", "/metrics"), ("all", "/metrics")):
            async with client.get(where, headers=bearer(keys[role])):
                pass
        async with client.get("/api/v2/quotes", headers=bearer(keys["all"][:-1])):
            pass
        async with client.ws_connect("/graphql", protocols=[SUBPROTOCOL]) as socket:
            payload = {"Authorization": f"Basic {keys['all']}"}
            await socket.send_json({"type": "connection_init", "payload": payload})
            assert (await socket.receive()).data == UNAUTHORIZED
    text = path.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    noted = [(line["principal"], line["what"], line["allowed"]) for line in lines]
    assert [each for each in noted if each[1] != "GET /ws/marketdata"] == [
        ("anonymous", "enter", False),
        ("key:some", "GET /api/v2/quotes", True),
        ("key:some", "GET /metrics", False),
        ("key:all", "GET /metrics", True),
        ("anonymous", "authenticate", False),
        ("anonymous", "GET /graphql", True),
        ("anonymous", "authenticate", False),
    ]
    assert {line["address"] for line in lines} == {"127.0.0.1"}
    assert not any(keys[role].split("_", 2)[2] in text for role in ROLES)


async def test_metrics_and_logs_have_no_tokens(keys, monkeypatch, caplog):
    """Of requests, messages, tickets and wrong tokens, wherever a client puts them."""
    caplog.set_level(logging.DEBUG)
    async with gateway(monkeypatch, keys, keys.security()) as client:
        tokens = [keys["some"], await ticket(client, keys["some"]), "mdt_nobody_0123456789abcdef"]
        for token in tokens:
            path = f"/ws/marketdata?symbol=AAPL&ticket={token}"
            with contextlib.suppress(WSServerHandshakeError):
                async with client.ws_connect(path) as socket:
                    await socket.send_json({"op": "auth", "token": token})
                    await socket.receive()
            async with client.ws_connect("/stream") as socket:
                await socket.send_json({"op": "auth", "token": token})
                await socket.receive()
            await client.answer(f"/api/v2/quotes/{token}?token={token}")
            async with client.get("/api/v2/quotes", headers=bearer(token)):
                pass
        async with client.get("/metrics", headers=bearer(keys["all"])) as response:
            text = await response.text()
    assert "mdtool_sockets" in text
    for token in tokens:
        assert token[-12:] not in text
        assert token[-12:] not in caplog.text


class Issuer:
    """An issuer's keys, which are sent once a test says so."""

    def __init__(self, *published):
        self.published = published
        self.may_answer = asyncio.Event()
        self.was_asked = asyncio.Event()

    @contextlib.asynccontextmanager
    async def serving(self):
        app = web.Application()
        app.router.add_get("/keys", self._answer)
        async with listening(app, "127.0.0.1", 0) as address:
            yield f"http://{address}/keys"

    async def _answer(self, _request):
        self.was_asked.set()
        await self.may_answer.wait()
        return web.json_response({"keys": [key.as_dict(private=False) for key in self.published]})


class RawStomp:
    def __init__(self, client):
        self._client = client

    async def open(self):
        self._socket = await self._client.ws_connect("/ws/websocket")

    async def send(self, *frames):
        await self._socket.send_bytes(b"".join(frames))

    async def next(self):
        message = await self._socket.receive()
        return message.data if message.type is WSMsgType.TEXT else self._socket.close_code


class PolledStomp:
    """STOMP in requests of SockJS."""

    def __init__(self, client):
        self._client = client
        self._path = f"/ws/000/{id(self)}"
        self._messages = []

    async def open(self):
        async with self._client.post(f"{self._path}/xhr") as response:
            assert await response.text() == "o\n"

    async def send(self, *frames):
        sent = [frame.decode() for frame in frames]
        async with self._client.post(f"{self._path}/xhr_send", json=sent) as response:
            assert response.status == 204

    async def next(self):
        while not self._messages:
            async with self._client.post(f"{self._path}/xhr") as response:
                self._messages = [
                    message
                    for kind, *rest in (await response.text()).splitlines()
                    for message in json.loads("".join(rest) or "[]")[: 1 if kind == "c" else None]
                ]
        return self._messages.pop(0)


async def test_what_is_sent_after_the_end_of_a_token_is_not_relayed(keys, monkeypatch):
    """A session of SockJS without WebSocket lasts on, for its client to learn of its end."""

    def joining(name):
        signal = json.dumps({"type": "JOIN", "senderId": name}).encode()
        return encode("SEND", {"destination": "/app/signal"}, signal)

    leaver = keys.make("leaver", "all")
    async with gateway(monkeypatch, keys, keys.security()) as client:
        ended, other = PolledStomp(client), PolledStomp(client)
        for each, token in ((ended, leaver), (other, keys["all"])):
            await each.open()
            await each.send(
                encode("CONNECT", {"accept-version": "1.2", "Authorization": f"Bearer {token}"}),
                encode("SUBSCRIBE", {"id": "0", "destination": "/topic/signaling"}),
            )
            assert (await each.next()).startswith("CONNECTED")
        api_keys.revoke(keys.path, "leaver")
        assert await ended.next() == UNAUTHORIZED
        await ended.send(joining("ended"))
        await other.send(joining("other"))
        assert '"senderId":"other"' in await other.next()
        assert await ended.next() == UNAUTHORIZED


@pytest.mark.parametrize("kind", [RawStomp, PolledStomp])
async def test_stomp_waits_for_the_issuers_new_keys(keys, monkeypatch, tmp_path, kind):
    monkeypatch.setattr(jwt, "_RETRY_S", 0.0)
    old, new, never = new_key("old"), new_key("new"), new_key("never")
    issuer = Issuer(old)
    issuer.may_answer.set()
    file = tmp_path / "audit.jsonl"
    audit = AuditLog(AuditConfig(file=str(file)), "gateway")
    async with issuer.serving() as jwks:
        config = AuthConfig(
            mode=REQUIRED, issuer=ISSUER, audience=AUDIENCE, jwks=jwks, keys=str(keys.path)
        )
        security = Security(config, Roles(ROLES), {}, audit)
        async with gateway(monkeypatch, keys, security) as client:

            def connect(key):
                token = sign(key, claims(mdtool={"roles": ["some"]}))
                headers = {"accept-version": "1.2", "Authorization": f"Bearer {token}"}
                return encode("CONNECT", headers)

            waiting, rejected, other = kind(client), kind(client), RawStomp(client)
            for each in (waiting, rejected, other):
                await each.open()
            await rejected.send(connect(never))
            assert "its key is unknown" in await rejected.next()
            assert await rejected.next() == UNAUTHORIZED
            issuer.published = (old, new)
            issuer.may_answer.clear()
            issuer.was_asked.clear()
            destination = {"destination": "/topic/market-data/AAPL", "id": "1"}
            sending = asyncio.ensure_future(
                waiting.send(connect(new), encode("SUBSCRIBE", destination))
            )
            await issuer.was_asked.wait()
            await other.send(connect(old))
            assert (await other.next()).startswith("CONNECTED")
            issuer.may_answer.set()
            await sending
            assert (await waiting.next()).startswith("CONNECTED")
            assert (await waiting.next()).startswith("MESSAGE")
            issuer.published = (new := new_key("newer"),)
            token = sign(new, claims(mdtool={"roles": ["some"]})).encode()
            renewal = encode("SEND", {"destination": "/app/auth", "receipt": "2"}, token)
            await waiting.send(renewal)
            while not (answer := await waiting.next()).startswith("RECEIPT"):
                assert answer.startswith("MESSAGE")
    assert "its key is unknown" in file.read_text()


async def test_rooms_of_signaling_require_a_right(keys, monkeypatch):
    async with gateway(monkeypatch, keys, keys.security()) as client:
        for role, status in (("some", 403), ("all", 200)):
            async with client.get("/api/v1/ice-servers", headers=bearer(keys[role])) as answer:
                assert answer.status == status
        for role in ("some", "all"):
            socket = await opened(client, "/ws/websocket", keys[role])
            there = {"id": "1", "destination": "/topic/signaling/room", "receipt": "r"}
            await socket.send_bytes(encode("SUBSCRIBE", there))
            said = await socket.receive_str()
            assert said.startswith("ERROR" if role == "some" else "RECEIPT"), said
            assert ("requires the right 'signaling'" in said) == (role == "some")
            await socket.close()
