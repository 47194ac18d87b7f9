"""Buses, by which accepted ticks reach the aggregators."""

from __future__ import annotations

from mdtool.adapters.bus.port import Bus
from mdtool.adapters.local_market import LocalMarket
from mdtool.core.symbols import SymbolTable


def open_bus(
    url: str, symbols: SymbolTable, local: LocalMarket | None = None, socket: str = ""
) -> Bus:
    """Return the bus that a URL names, to be entered before use.

    Parameters
    ----------
    url : str
        `kafka://HOST:PORT`, or an aggregator's `HOST:PORT`.
    symbols : SymbolTable
        What the symbol indices of published ticks mean; it may grow.
    local : LocalMarket, optional
        The market of an aggregator in this process, which then gets the ticks instead.
    socket : str, optional
        The Unix socket of the aggregator.

    Raises
    ------
    ConfigError
        When the URL is not valid, or what it needs is not installed.
    """
    if local is not None:
        from mdtool.adapters.bus.memory import MemoryBus

        return MemoryBus(local, symbols)
    if "://" in url:
        from mdtool.adapters.bus.kafka import KafkaBus

        return KafkaBus(url, symbols)
    from mdtool.adapters.bus.grpc import GrpcBus

    return GrpcBus(url, symbols, socket)
