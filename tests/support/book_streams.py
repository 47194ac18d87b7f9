"""Streams of MBO records, valid and random, to rebuild books from."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from mdtool.core.dtypes import MBO, RTYPE_MBO, record_length

UNDEF_PRICE = 2**63 - 1
UNDEF_SIZE = 2**32 - 1
UNDEF_TIMESTAMP = 2**64 - 1
LAST, TOB, SNAPSHOT, MBP, BAD_TS_RECV, MAYBE_BAD_BOOK = 128, 64, 32, 16, 8, 4
NOON = 1_700_049_600 * 10**9
DAY = 86_400 * 10**9

FIELDS = (
    "publisher_id", "instrument_id", "order_id", "price", "size",
    "flags", "action", "side", "ts_event", "ts_recv", "sequence",
)  # fmt: skip

books = st.sampled_from([(1, 7), (1, 7), (1, 7), (2, 7), (1, 8), (65535, 2**32 - 1)])
order_ids = st.sampled_from([*range(12), 2**63 - 1, 2**63, 2**64 - 1])
far_prices = st.sampled_from([UNDEF_PRICE, UNDEF_PRICE - 1, -(2**63), -5, 0])
sizes = st.integers(0, 6) | st.sampled_from([UNDEF_SIZE, UNDEF_SIZE - 1, 2**31])
sides = st.sampled_from([b"B", b"B", b"A", b"A", b"N"])
times = st.integers(0, 50).map(lambda ns: NOON + ns)
far_times = st.sampled_from([0, NOON + DAY, NOON + 2 * DAY, UNDEF_TIMESTAMP])
flags = st.sampled_from([0, LAST, LAST, LAST | MAYBE_BAD_BOOK, MBP | BAD_TS_RECV])
rare_flags = st.sampled_from([TOB, TOB | LAST, SNAPSHOT, SNAPSHOT | LAST, SNAPSHOT | TOB, 255])


def records(prices: st.SearchStrategy[int]) -> st.SearchStrategy[tuple]:
    """Return random single records."""
    return st.tuples(
        books,
        order_ids,
        prices,
        sizes,
        flags | flags | rare_flags,
        st.sampled_from([bytes([action]) for action in b"AAAAAACCCMMMTFNRX"]),
        sides,
        times,
        times | times | far_times,
    ).map(lambda fields: (*fields[0], *fields[1:]))


def wild(max_size: int = 80) -> st.SearchStrategy[np.ndarray]:
    """Return random streams of few levels and few ids, which collide often."""
    return st.lists(records(st.integers(95, 105) | far_prices), max_size=max_size).map(as_mbo)


def deep(max_size: int = 120) -> st.SearchStrategy[np.ndarray]:
    """Return streams of one book with many more levels than depth records show."""
    order = st.tuples(st.integers(0, 40), st.integers(60, 140), st.integers(1, 5))
    change = st.sampled_from([b"A", b"A", b"A", b"A", b"M", b"M", b"C", b"T", b"F"])
    return st.lists(st.tuples(order, change, st.booleans()), max_size=max_size).map(
        lambda rows: as_mbo(
            [
                (1, 7, order_id, price, size, LAST if is_last else 0, action, side, NOON, NOON)
                for (order_id, price, size), action, is_last in rows
                for side in [b"B" if price < 100 else b"A"]
            ]
        )
    )


@st.composite
def with_snapshots(draw: st.DrawFn) -> np.ndarray:
    """Return streams of days that begin with a snapshot, with its clear or without."""
    rows: list[tuple] = []
    for day in range(draw(st.integers(1, 4))):
        ts_recv = NOON + day * DAY
        if draw(st.booleans()):
            cleared = SNAPSHOT | BAD_TS_RECV
            rows.append((1, 7, 0, UNDEF_PRICE, 0, cleared, b"R", b"N", NOON, ts_recv))
        resting = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(97, 103)), max_size=9))
        for at, (order_id, price) in enumerate(resting):
            mark = SNAPSHOT | BAD_TS_RECV | (LAST if at == len(resting) - 1 else 0)
            side = b"B" if price < 100 else b"A"
            rows.append((1, 7, order_id, price, 1 + at, mark, b"A", side, NOON - at, ts_recv))
        events = draw(st.lists(records(st.integers(95, 105)), max_size=12))
        rows += [(*event[:-1], ts_recv + 1) for event in events]
    return as_mbo(rows)


def as_mbo(rows: list[tuple]) -> np.ndarray:
    """Return records of rows of `FIELDS`, whose sequence counts them."""
    stream = np.zeros(len(rows), MBO)
    stream["length"], stream["rtype"] = record_length(MBO), RTYPE_MBO
    for at, row in enumerate(rows):
        for name, value in zip(FIELDS, (*row, at), strict=True):
            stream[name][at] = value
    stream["ts_in_delta"] = -1
    stream["channel_id"] = 3
    return stream
