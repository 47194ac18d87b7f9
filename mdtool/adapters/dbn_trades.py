"""The trades of a source of any schema, each once, whatever views of them it has."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from typing import Final

from mdtool.adapters.dbn_source import DerivedSource, RecordSource
from mdtool.core.batch import Batch
from mdtool.core.errors import InputError
from mdtool.engine.trade_views import CADENCES, TRADE_VIEWS, TradeViews
from mdtool.wire.dbn_records import RTYPES, SCHEMAS

log = logging.getLogger(__name__)

_VIEWS: Final = frozenset({*TRADE_VIEWS, *CADENCES})


class TradeSource(DerivedSource):
    """The records of a source, of which those that are trades are each another trade.

    Where the header names a schema, the trades are those of its records. Where it names none, as
    in live captures and in merged files, they are those of the preferred view of each instrument:
    see `TradeViews`. A line on the log says which views there were, at the second one and, with
    counts, at the end.

    Parameters
    ----------
    source : RecordSource
        Closed together with this one, or when this one cannot be made.
    bars : collection of int
        The rtypes of bars that take the place of trades where there are none. Other bars are
        skipped.

    Raises
    ------
    InputError
        When the header names a schema without trades, or with other bars.
    """

    def __init__(self, source: RecordSource, bars: Collection[int] = ()) -> None:
        super().__init__(source)
        self._rtype = named_rtype(source)
        self._bars = bars
        self._views = TradeViews()
        self._others = 0
        if self._rtype is not None and not self._is_taken(self._rtype):
            source.close()
            lacks = "which has no trades"
            if bars and self._rtype in CADENCES:
                lacks = "of which only bars of a multiple of its interval can be made"
            raise InputError(
                f"{source.name}: is {source.metadata.schema}, {lacks}; give trades, mbo, mbp-1, "
                "mbp-10, tbbo, cmbp-1 or tcbbo"
            )

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._source:
            rtype = batch.rtype
            if rtype not in _VIEWS:
                yield batch
            elif not self._is_taken(rtype):
                continue
            elif self._rtype is None:
                yield from self._once(batch)
            elif rtype == self._rtype:
                yield batch
            else:
                self._others += len(batch)

    def close(self) -> None:
        """Close the other source, and log what was counted where there was a choice."""
        super().close()
        if self._others:
            log.warning(
                "%s: left out %d records of other schemas than %s, which its header names",
                self.name,
                self._others,
                self.metadata.schema,
            )
        report_views(self.name, self._views)

    def _is_taken(self, rtype: int) -> bool:
        return rtype in TRADE_VIEWS or rtype in self._bars

    def _once(self, batch: Batch) -> Iterator[Batch]:
        known = len(self._views.shown)
        chosen = self._views.choose(batch)
        rtypes = self._views.shown
        if self.size_bytes is None and known == 1 and len(rtypes) == 2:
            log.warning(
                "%s: has several views of its trades: %s; each trade is counted once, by the "
                "first of them that its instrument has; --schema chooses one",
                self.name,
                ", ".join(SCHEMAS[rtype] for rtype in rtypes),
            )
        if len(chosen):
            yield chosen


def report_views(name: str, views: TradeViews) -> None:
    """Log what was counted of a stream where there was a choice."""
    if len(views.shown) > 1:
        log.warning(
            "%s: counted each trade once: %s; left out %s; --schema chooses another view",
            name,
            _counts(views, views.counted),
            _counts(views, views.left_out),
        )
    if later := views.later:
        log.warning(
            "%s: %d of those left out came after the last one counted of their instrument: "
            "the views cover different times",
            name,
            later,
        )


def named_rtype(source: RecordSource) -> int | None:
    """Return the rtype of the schema that a source's header names, None where it names none."""
    schema = source.metadata.schema
    return None if schema is None else RTYPES[str(schema)]


def _counts(views: TradeViews, of: dict[int, int]) -> str:
    """Return counts by view, such as `3 by mbo, 2 by mbp-1`."""
    return ", ".join(f"{of[rtype]} by {SCHEMAS[rtype]}" for rtype in views.rtypes if of[rtype])
