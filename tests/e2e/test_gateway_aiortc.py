"""Two `aiortc` peers, which find each other through the gateway and then need it no more."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack

from tests.reference.market_source import MarketSource
from tests.support.gateways import gateway_of
from tests.support.stomp_peers import StompPeer, stomp


@pytest.fixture
async def client():
    async with MarketSource().serving() as source, gateway_of(source.address) as client:
        yield client


class RtcPeer:
    """A peer of a room of two."""

    def __init__(self, name: str, signals: StompPeer) -> None:
        self.name = name
        self.heard: asyncio.Queue[str] = asyncio.Queue()
        self.tracks: asyncio.Queue[str] = asyncio.Queue()
        self.connection = RTCPeerConnection()
        self.connection.addTrack(AudioStreamTrack())
        self.connection.on("track", lambda track: self.tracks.put_nowait(track.kind))
        self.connection.on("datachannel", self._open)
        self._signals = signals

    async def say(self, kind: str, target: str | None = None, **fields: str) -> None:
        signal = {"type": kind, "senderId": self.name, "targetId": target, **fields}
        headers = {"destination": "/app/signal/desk"}
        await self._signals.send("SEND", headers, json.dumps(signal).encode())

    async def run(self) -> None:
        """Answer offers; make one to who joins later."""
        has_joined = False
        await self._signals.follow("/topic/signaling/desk")
        await self.say("JOIN")
        while True:
            _, signal = await self._signals.message()
            sender = signal["senderId"]
            match signal["type"]:
                case "JOIN" if sender == self.name:
                    has_joined = True
                case "JOIN" if has_joined:
                    self._open(self.connection.createDataChannel("market"))
                    offer = await self.connection.createOffer()
                    await self.connection.setLocalDescription(offer)
                    sdp = self.connection.localDescription.sdp
                    await self.say("OFFER", sender, sdp=sdp)
                case "OFFER":
                    offer = RTCSessionDescription(signal["sdp"], "offer")
                    await self.connection.setRemoteDescription(offer)
                    answer = await self.connection.createAnswer()
                    await self.connection.setLocalDescription(answer)
                    sdp = self.connection.localDescription.sdp
                    await self.say("ANSWER", sender, sdp=sdp)
                case "ANSWER":
                    answer = RTCSessionDescription(signal["sdp"], "answer")
                    await self.connection.setRemoteDescription(answer)

    def _open(self, channel) -> None:
        channel.on("message", self.heard.put_nowait)

        def greet() -> None:
            channel.send(f"{self.name} watches AAPL")

        if channel.readyState == "open":
            greet()
        else:
            channel.on("open", greet)


async def test_two_peers_connect_and_talk(client):
    async with contextlib.AsyncExitStack() as stack:
        peers = []
        for name in ("a", "b"):
            signals = await stack.enter_async_context(stomp(client))
            peer = RtcPeer(name, signals)
            stack.push_async_callback(peer.connection.close)
            peers.append(peer)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        running = [tasks.create_task(peer.run()) for peer in peers]
        for peer, other in (peers, reversed(peers)):
            assert await peer.tracks.get() == "audio"
            assert await peer.heard.get() == f"{other.name} watches AAPL"
        for task in running:
            task.cancel()
