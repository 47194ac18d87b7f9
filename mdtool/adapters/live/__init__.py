"""Live sources: exchanges and vendors, each a DBN stream that is written while it is read."""

from __future__ import annotations

from typing import Final

SESSIONS: Final = {
    "kraken": "mdtool.adapters.live.kraken:KrakenSession",
    "binance": "mdtool.adapters.live.binance:BinanceSession",
    "finnhub": "mdtool.adapters.live.finnhub:FinnhubSession",
    "alpaca": "mdtool.adapters.live.alpaca:AlpacaSession",
}
"""The `Session` of each source over a WebSocket."""
CLIENTS: Final = {"databento": "mdtool.adapters.live.databento:DatabentoSource"}
"""The `LiveSource` of each source with a client of its own."""
SOURCES: Final = (*SESSIONS, *CLIENTS)
