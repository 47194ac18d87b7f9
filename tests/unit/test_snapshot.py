import numpy as np

from mdtool.core.dtypes import MBP1, MBP10
from mdtool.core.units import UNDEF_ORDER_SIZE, UNDEF_PRICE
from mdtool.engine.book.snapshot import Snapshot, snapshot_records
from mdtool.engine.book.state import Books
from mdtool.engine.book.view import BookView
from tests.support.book_streams import DAY, LAST, NOON, TOB, as_mbo
from tests.support.instruments import batch, index_of

DOLLAR = 10**9
CLEAR = (1, 7, 0, UNDEF_PRICE, 0, LAST, b"R", b"N", NOON, NOON)


def order(order_id, price, size, side, action=b"A", flags=LAST, ts=NOON + 5):
    return (1, 7, order_id, price, size, flags, action, side, ts - 2, ts)


def book(*rows) -> BookView:
    books = Books()
    books.apply(batch(as_mbo([*rows])))
    return BookView(books, index_of(1, 7))


WHOLE = (
    CLEAR,
    order(1, 65_400_000_000, 2, b"B"),
    order(2, 65_400_000_000, 3, b"B"),
    order(3, 65_390_000_001, 9, b"B"),
    order(4, 65_500_000_000, 4, b"A", ts=NOON + DAY),
)


def test_as_json_takes_it():
    assert Snapshot.of(book(*WHOLE)).as_dict("CLX5") == {
        "symbol": "CLX5",
        "publisher": "GLBX.MDP3.GLBX",
        "publisher_id": 1,
        "timestamp": "2023-11-16T12:00:00.000000000Z",
        "timestamp_ns": str(NOON + DAY),
        "bbo": {
            "bid": {"price": "65.4", "size": 5, "count": 2},
            "ask": {"price": "65.5", "size": 4, "count": 1},
        },
        "levels": {
            "bids": [
                {"price": "65.4", "size": 5, "count": 2},
                {"price": "65.390000001", "size": 9, "count": 1},
            ],
            "asks": [{"price": "65.5", "size": 4, "count": 1}],
        },
        "stats": {"total_orders": 4, "bid_levels": 2, "ask_levels": 1},
        "partial": False,
        "anomalies": {},
    }


def test_depth_cuts_the_levels_and_not_the_counts():
    shallow = Snapshot.of(book(*WHOLE), depth=1).as_dict("CLX5")
    assert [level["price"] for level in shallow["levels"]["bids"]] == ["65.4"]
    assert shallow["stats"]["bid_levels"] == 2


def test_empty_sides_partial_books_and_anomalies():
    told = Snapshot.of(book(order(1, DOLLAR, 1, b"A"), order(9, 0, 1, b"B", b"C"))).as_dict("X")
    assert told["bbo"]["bid"] is None
    assert told["levels"]["bids"] == []
    assert told["partial"] is True
    assert told["anomalies"] == {"unknown_cancel": 1}


def test_the_time_may_be_another_than_the_last_record_s():
    told = Snapshot.of(book(*WHOLE), ts_ns=NOON + 2 * DAY)
    assert (told.ts_ns, told.ts_recv) == (NOON + 2 * DAY, NOON + DAY)


def test_a_snapshot_stands_still():
    books = Books()
    books.apply(batch(as_mbo([*WHOLE])))
    before = Snapshot.of(BookView(books, index_of(1, 7)))
    told = before.as_dict("CLX5")
    books.apply(batch(as_mbo([CLEAR])))
    assert before.as_dict("CLX5") == told


class TestRecords:
    def test_fields_and_levels(self):
        snapshots = [Snapshot.of(book(*WHOLE), ts_ns=NOON + DAY + 1)]
        [record] = snapshot_records(snapshots, 10)
        assert record.dtype == MBP10
        head = [record[name] for name in ("length", "rtype", "publisher_id", "instrument_id")]
        assert head == [92, 10, 1, 7]
        assert (record["ts_recv"], record["ts_event"]) == (NOON + DAY + 1, NOON + DAY - 2)
        assert (record["action"], record["side"], record["depth"]) == (b"N", b"N", 0)
        assert (record["price"], record["size"], record["sequence"]) == (UNDEF_PRICE, 0, 4)
        assert record["flags"] == 128 | 32
        best = [record[f"bid_{field}_00"] for field in ("px", "sz", "ct")]
        assert best == [65_400_000_000, 5, 2]
        assert [record[f"ask_{field}_01"] for field in ("px", "sz", "ct")] == [UNDEF_PRICE, 0, 0]

    def test_one_level(self):
        [record] = snapshot_records([Snapshot.of(book(*WHOLE))], 1)
        assert record.dtype == MBP1
        assert (record["length"], record["rtype"]) == (20, 1)
        assert record["ask_px_00"] == 65_500_000_000

    def test_partial_is_flagged(self):
        [record] = snapshot_records([Snapshot.of(book(order(1, DOLLAR, 1, b"A")))], 1)
        assert record["flags"] == 128 | 32 | 4

    def test_sizes_that_do_not_fit_are_the_largest_that_do(self):
        rows = [order(n, DOLLAR, UNDEF_ORDER_SIZE - 1, b"B") for n in range(3)]
        [record] = snapshot_records([Snapshot.of(book(CLEAR, *rows))], 10)
        assert record["bid_sz_00"] == UNDEF_ORDER_SIZE

    def test_quotes_without_orders_and_no_snapshots(self):
        quoted = Snapshot.of(book(order(0, DOLLAR, 8, b"B", flags=LAST | TOB)))
        [record] = snapshot_records([quoted], 10)
        assert (record["bid_sz_00"], record["bid_ct_00"]) == (8, 0)
        assert np.array_equal(snapshot_records([], 1), np.empty(0, MBP1))


def test_orders_of_each_level_in_queue_order():
    rows = [
        CLEAR,
        order(1, DOLLAR, 5, b"B"),
        order(2, 2 * DOLLAR, 7, b"B"),
        order(3, DOLLAR, 4, b"B"),
        order(2**63 + 9, 3 * DOLLAR, 8, b"A"),
        order(1, DOLLAR, 6, b"B", b"M"),  # a larger size goes to the back of the queue
    ]

    def queues(levels):
        return [[(each["order_id"], each["size"]) for each in level["orders"]] for level in levels]

    told = Snapshot.of(book(*rows), has_orders=True).as_dict("X")
    assert queues(told["levels"]["bids"]) == [[("2", 7)], [("3", 4), ("1", 6)]]
    assert queues(told["levels"]["asks"]) == [[(str(2**63 + 9), 8)]]
    assert "orders" not in told["bbo"]["bid"]
    best = Snapshot.of(book(*rows), depth=1, has_orders=True).as_dict("X")
    assert queues(best["levels"]["bids"]) == [[("2", 7)]]
