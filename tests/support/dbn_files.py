"""Small DBN files whose headers map names to ids by date, and live captures."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import databento_dbn as dbn
import numpy as np

from mdtool.wire.dbn import DbnDecoder
from tests.reference import dbn_streams as streams

MAY_1 = 1_714_521_600 * 10**9
"""2024-05-01T00:00:00Z"""
DAY = 86_400 * 10**9
HOUR = 3_600 * 10**9
F_LAST = 128


@dataclass(frozen=True)
class _Interval:
    start_date: dt.date
    end_date: dt.date
    symbol: str


@dataclass(frozen=True)
class _Mapping:
    raw_symbol: str
    intervals: Sequence[_Interval]


def header(
    names: Mapping[str, Mapping[int, int]],
    schema: str | None = "trades",
    stype_in: str = "raw_symbol",
    dataset: str = "XNAS.ITCH",
    start: int = MAY_1,
) -> dbn.Metadata:
    """A header with the id of each name on days of May."""
    mappings = [
        _Mapping(
            name,
            [
                _Interval(dt.date(2024, 5, day), dt.date(2024, 5, day + 1), str(number))
                for day, number in ids.items()
            ],
        )
        for name, ids in names.items()
    ]
    return dbn.Metadata(
        dataset=dataset,
        start=start,
        stype_in=dbn.SType(stype_in),
        stype_out=dbn.SType("instrument_id"),
        schema=dbn.Schema(schema) if schema else None,
        symbols=[*names],
        mappings=mappings,
    )


def trade(
    instrument_id: int,
    ts: int,
    price: int,
    size: int,
    publisher_id: int = 2,
    unit: int = 10**9,
) -> bytes:
    return bytes(
        dbn.TradeMsg(
            publisher_id=publisher_id,
            instrument_id=instrument_id,
            ts_event=ts,
            ts_recv=ts,
            price=price if price == dbn.UNDEF_PRICE else price * unit,
            size=size,
            action=dbn.Action.TRADE,
            side=dbn.Side.BID,
            depth=0,
            flags=F_LAST,
            ts_in_delta=0,
            sequence=0,
        )
    )


def order(
    instrument_id: int,
    ts: int,
    action: str,
    side: str = "N",
    price: int | None = None,
    size: int = 0,
    order_id: int = 0,
    publisher_id: int = 2,
) -> bytes:
    return bytes(
        dbn.MBOMsg(
            publisher_id=publisher_id,
            instrument_id=instrument_id,
            ts_event=ts,
            ts_recv=ts,
            order_id=order_id,
            price=2**63 - 1 if price is None else price * 10**9,
            size=size,
            action=dbn.Action(action),
            side=dbn.Side(side),
            flags=F_LAST,
            channel_id=0,
            ts_in_delta=0,
            sequence=0,
        )
    )


def write(path: Path, metadata: dbn.Metadata, *records: bytes) -> Path:
    path.write_bytes(metadata.encode() + b"".join(records))
    return path


mapping = streams.mapping


def decoded(data: bytes) -> np.ndarray:
    """The records of a DBN stream of one layout."""
    decoder = DbnDecoder()
    runs = decoder.feed(data)
    decoder.finish()
    return np.concatenate(runs)
