"""The latest quotes of MBP and trade records, record by record in plain dicts."""

from __future__ import annotations

UNDEF_PRICE = 2**63 - 1
F_LAST = 128
NOTHING = (UNDEF_PRICE, UNDEF_PRICE, UNDEF_PRICE)


class PlainQuotes:
    """Bid, ask and last by (publisher id, instrument id)."""

    def __init__(self) -> None:
        self.quotes: dict[tuple[int, int], tuple[int, int, int]] = {}
        self.times: dict[tuple[int, int], int] = {}

    def update(self, records) -> set[tuple[int, int]]:
        """Take records; the keys of those that changed or traded."""
        before = dict(self.quotes)
        traded = set()
        for record in records:
            key = (int(record["publisher_id"]), int(record["instrument_id"]))
            bid, ask, last = self.quotes.get(key, NOTHING)
            is_trade = record["action"] == b"T"
            has_levels = "bid_px_00" in record.dtype.names
            if has_levels and (is_trade or record["flags"] & F_LAST):
                bid, ask = int(record["bid_px_00"]), int(record["ask_px_00"])
                self.times[key] = int(record["ts_recv"])
            if is_trade and record["price"] != UNDEF_PRICE and record["size"]:
                last = int(record["price"])
                self.times[key] = max(self.times.get(key, 0), int(record["ts_recv"]))
                traded.add(key)
            self.quotes[key] = (bid, ask, last)
        changed = {key for key, quote in self.quotes.items() if quote != before.get(key, NOTHING)}
        return changed | traded
