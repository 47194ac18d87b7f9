"""Messages of live sources, changed anywhere: each counts or is skipped, and none ends a source."""

from __future__ import annotations

import copy
import json
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from mdtool.adapters.live.alpaca import AlpacaSession
from mdtool.adapters.live.binance import BinanceSession
from mdtool.adapters.live.config import SourceConfig
from mdtool.adapters.live.connections import Connections
from mdtool.adapters.live.event_stream import EventStream
from mdtool.adapters.live.finnhub import FinnhubSession
from mdtool.adapters.live.kraken import KrakenSession
from mdtool.adapters.live.port import Request, Session
from mdtool.wire.dbn import DbnDecoder

AT_NS = 1_796_169_600_123_000_000
AT = "2026-12-02T00:00:00.123Z"
MESSAGES: dict[type[Session], list[str]] = {
    KrakenSession: [
        """{"channel":"instrument","type":"snapshot","data":{"pairs":[
            {"symbol":"A","qty_increment":0.001},{"symbol":"B","qty_increment":1}]}}""",
        """{"method":"subscribe","success":true,"result":{"channel":"trade","symbol":"A"}}""",
        """{"method":"subscribe","success":false,"error":"no","symbol":"B"}""",
        """{"channel":"trade","type":"update","data":[{"symbol":"A","side":"buy","price":1.5,
            "qty":0.5,"trade_id":1,"timestamp":"AT"}]}""".replace("AT", AT),
    ],
    BinanceSession: [
        """{"symbols":[{"symbol":"A","filters":[
            {"filterType":"LOT_SIZE","stepSize":"0.001"}]}]}""",
        """{"result":null,"id":1}""",
        """{"error":{"code":-1008,"msg":"busy"},"id":1}""",
        """{"e":"trade","s":"A","t":1,"p":"1.5","q":"0.5","T":1796169600123,"m":true}""",
    ],
    FinnhubSession: [
        """{"type":"error","msg":"no"}""",
        """{"type":"trade","data":[{"s":"A","p":1.5,"v":2,"t":1796169600123,"c":["1"]}]}""",
    ],
    AlpacaSession: [
        """[{"T":"success","msg":"connected"},{"T":"subscription","trades":["A"]},
            {"T":"error","code":500,"msg":"no"}]""",
        """[{"T":"c","S":"A","x":"V","oi":5,"op":1,"os":2,"ci":6,"cp":3,"cs":4},
            {"T":"x","S":"A","x":"V","i":5,"p":1,"s":2}]""",
        """[{"T":"t","S":"A","i":1,"x":"V","p":1.5,"s":2,"c":["@"],"t":"AT"},
            {"T":"q","S":"A","bp":1,"bs":2,"ap":2,"as":3,"t":"AT"}]""".replace("AT", AT),
    ],
}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["1e999999", "-0", "0.1", AT, "A", "trade", "\ud800"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@given(
    data=st.data(),
    kind=st.sampled_from(list(MESSAGES)),
    removes=st.booleans(),
)
def test_no_message_ends_a_source(data, kind, removes):
    messages = [json.loads(text) for text in MESSAGES[kind]]
    at = data.draw(st.integers(0, len(messages) - 1))
    changed = copy.deepcopy(messages[at])
    places = list(inner_places(changed))
    place, key = data.draw(st.sampled_from(places))
    if removes:
        del place[key]
    else:
        place[key] = data.draw(VALUES)
    stream = EventStream(kind, SourceConfig(lot="A=0.001"), AT_NS)
    connections = Connections(kind, Request(["A", "B"]))
    stream.add(connections.opened(), AT_NS)
    for message in (*messages[:at], changed, *messages):
        stream.add(connections.received(json.dumps(message)), AT_NS)
    decoder = DbnDecoder("test")
    for data_read in iter(partial(stream.read, 1 << 16, lambda: False), b""):
        decoder.decode(data_read)
    decoder.finish()
    # Whatever came before it or instead of it, the last message has a trade.
    assert stream.counts["trades"] + stream.counts["duplicates"] >= 1


def inner_places(value):
    """Containers in a message, and their keys."""
    for key, inner in enumerate(value) if isinstance(value, list) else value.items():
        yield value, key
        if isinstance(inner, list | dict):
            yield from inner_places(inner)
