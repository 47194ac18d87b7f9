"""`mdtool store` run to its end, DBN files to give it, and what a store then holds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from mdtool.adapters.stores import open_history, open_store
from mdtool.adapters.stores.port import Step, StreamRun
from mdtool.core.dtypes import F_LAST, RTYPE_TRADE, TRADE, record_length
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Trades
from mdtool.wire.dbn import encode_metadata, encode_records
from mdtool.wire.dbn_metadata import make_metadata
from tests.support.commands import completed

NOON_NS = 1_758_715_200 * 10**9
"""2025-09-24T12:00:00Z."""
DAY_NS = 86_400 * 10**9
SYMBOLS = ["ESZ5", "CLX5", "BRK/B", "A=B", "50%", "X Y"]


def store(*arguments: object, status: int = 0, said: str = "", stdin: bytes = b"") -> str:
    """Run it; check how it ended and what it said on stderr, one line; return its output."""
    ended = completed("store", *arguments, stdin=stdin)
    errors = ended.stderr.decode()
    assert ended.returncode == status, ended
    assert said in errors, ended
    if said:
        assert len(errors.splitlines()) == 1
        assert errors.startswith("mdtool: ") or " WARNING " in errors
    else:
        assert errors == "", ended
    return ended.stdout.decode()


def trades(n: int, symbols=SYMBOLS, begin_ns: int = NOON_NS, seed: int = 1) -> np.ndarray:
    """`n` trades in order of time; several share a nanosecond."""
    random = np.random.default_rng(seed)
    records = np.zeros(n, TRADE)
    records["length"] = record_length(TRADE)
    records["rtype"] = RTYPE_TRADE
    records["publisher_id"] = 1
    records["instrument_id"] = random.integers(1, len(symbols) + 1, n)
    records["ts_event"] = begin_ns + np.arange(n) // 3 * 100_000_001
    records["ts_recv"] = records["ts_event"] + 1_000
    records["price"] = random.integers(1, 2**62, n)
    records["size"] = random.integers(1, 2**32 - 1, n)
    records["action"] = b"T"
    records["side"] = b"N"
    records["flags"] = F_LAST
    return records


def write(path: Path, records: np.ndarray, symbols=SYMBOLS) -> Path:
    """Write records as a DBN file."""
    path.write_bytes(dbn(records, symbols))
    return path


def dbn(records: np.ndarray, symbols=SYMBOLS) -> bytes:
    """Records as a DBN stream."""
    begin, end = int(records["ts_recv"].min()), int(records["ts_recv"].max()) + 1
    instruments = dict(enumerate(symbols, start=1))
    metadata = make_metadata("XSIM.TEST", "trades", begin, end, instruments)
    return encode_metadata(metadata) + bytes(encode_records(records))


def url(folder: Path, name: str = "s") -> str:
    """A store in a folder."""
    return f"sqlite:///{folder}/{name}.db?synchronous=normal"


def held(where: str) -> list[tuple]:
    """Every trade of a store with its stream's name, in order, as plain values."""
    with open_history(where) as history:
        names = {stream.number: stream.stream_id for stream in history.streams()}
        return sorted(
            (symbol.symbol, ts, names[stream], sequence, price, volume, ingest)
            for symbol in history.symbols()
            for page in history.trades(symbol.symbol)
            for ts, stream, sequence, price, volume, ingest in zip(
                page.trades.ts_event.tolist(),
                page.stream.tolist(),
                page.sequence.tolist(),
                page.trades.price.tolist(),
                page.trades.size.tolist(),
                page.trades.ts_recv.tolist(),
                strict=True,
            )
        )


def expected(records: np.ndarray, symbols=SYMBOLS) -> list[tuple]:
    """What `held` has of a file, but for the name of the stream."""
    return sorted(
        (symbols[each["instrument_id"] - 1], int(each["ts_event"]), place, *numbers)
        for place, each in enumerate(records)
        for numbers in [(int(each["price"]), int(each["size"]), int(each["ts_recv"]))]
    )


def without_streams(rows: list[tuple]) -> list[tuple]:
    return sorted((*row[:2], *row[3:]) for row in rows)


def state(where: str):
    """What a market takes up again."""
    with open_store(where) as opened:
        return opened.load(100, 10_000_000_000)


def put(where: str, symbols: list[str], rows: list[tuple[int, int, int, int]], stream_id="s"):
    """Write trades (symbol's index, price, volume, time) as a live stream would."""
    columns = np.array(rows, np.int64).T
    trades = Trades(
        symbol=columns[0].astype(np.uint32),
        price=columns[1].copy(),
        size=columns[2].copy(),
        ts_event=columns[3].copy(),
        ts_recv=columns[3] + 7,
    )
    run = StreamRun(stream_id, 0, len(rows), np.arange(len(rows)), trades)
    with open_store(where) as opened:
        opened.write(Step(SymbolTable(symbols), [run]))


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, **changes}
