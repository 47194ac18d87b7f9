"""From DBN records with trades among them to DBN records of bars."""

from __future__ import annotations

from collections.abc import Iterator

from mdtool.core.dtypes import SYMBOL_MAPPING
from mdtool.core.records import Records, has_trades
from mdtool.engine.bar_fill import GapFill
from mdtool.engine.bars import Bars, TimeBars
from mdtool.engine.ohlcv import ohlcv_records, rtype_of, schema_of
from mdtool.engine.sized_bars import SizedBars
from mdtool.engine.trades import Trades


class BarStream:
    """Takes a stream of records as it comes and gives the bars that it closes.

    Parameters
    ----------
    bars : TimeBars or SizedBars
        What makes bars of trades.
    clock : str
        By which of a record's times: `ts_recv` or `ts_event`.
    fill : str
        What stands in an empty bucket: see `GapFill`. Sized bars have none.

    Attributes
    ----------
    schema : str or None
        Of the bars; None where DBN has none for them.
    trades : int
        How many trades were taken, late ones too.
    undefined : int
        How many trades were left out for having no price, size or time.
    """

    def __init__(
        self, bars: TimeBars | SizedBars, clock: str = "ts_recv", fill: str = "none"
    ) -> None:
        self._bars = bars
        self._clock = clock
        interval_ns = bars.interval_ns if isinstance(bars, TimeBars) else None
        self._rtype = rtype_of(interval_ns)
        self._fill = GapFill(fill, interval_ns or 1)
        self.schema = schema_of(interval_ns)
        self.trades = 0
        self.undefined = 0

    @property
    def late(self) -> int:
        """How many trades came after their bar had closed and were left out."""
        return self._bars.late if isinstance(self._bars, TimeBars) else 0

    def update(self, records: Records) -> Iterator[Records]:
        """Take records of one rtype; yield those of the bars that they close, if any.

        Symbol mappings are passed on, for they hold for the bars too. Other records without
        trades are skipped.
        """
        if records.dtype == SYMBOL_MAPPING:
            yield records
        if not has_trades(records.dtype):
            return
        trades = Trades.of(records, self._clock)
        self.trades += len(trades)
        self.undefined += trades.undefined
        yield from self._records(self._bars.update(trades))

    def close(self) -> Iterator[Records]:
        """Yield the records of the bars that the stream's end leaves open."""
        yield from self._records(self._bars.close_all())

    def _records(self, bars: Bars) -> Iterator[Records]:
        for block in self._fill.expand(bars):
            if len(block):
                yield ohlcv_records(block, self._rtype)
