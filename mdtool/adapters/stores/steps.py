"""The changes of a market, collected into the steps that a store writes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdtool.adapters.stores.port import Step, StreamRun
from mdtool.engine.market import Change, Market


class Steps:
    """Makes the steps of a market: each has all changes since the one before.

    A step must be written before the next one is taken.

    Parameters
    ----------
    market : Market
        As it was created or restored: its present state needs no step.
    """

    def __init__(self, market: Market) -> None:
        self._market = market
        self._commit = market.commit
        self._bar_step = market.bars.step

    def take(self, changes: Sequence[Change]) -> Step:
        """Return the step of `changes`, which are all since the latest step.

        It is a copy, which the market no longer changes.
        """
        market = self._market
        changed = market.changed_since(self._commit)
        bars = market.bars.saved_since(self._bar_step, changed)
        self._commit, self._bar_step = market.commit, market.bars.step
        streams: dict[str, list[Change]] = {}
        for change in changes:
            if change.ticks.frames:
                streams.setdefault(change.stream_id, []).append(change)
        return Step(
            # Indices of symbols never change: the table may grow while the step is written.
            symbols=market.symbols,
            runs=[_run(stream_id, news) for stream_id, news in streams.items()],
            changed=changed,
            sessions=market.sessions(changed),
            bars=bars,
            counts=market.totals(),
        )


def _run(stream_id: str, changes: Sequence[Change]) -> StreamRun:
    """Return consecutive changes of a stream as one run."""
    ticks = [change.ticks for change in changes]
    sequences = [change.first_sequence + change.ticks.offset.astype(np.int64) for change in changes]
    return StreamRun(
        stream_id=stream_id,
        first_sequence=changes[0].first_sequence,
        next_sequence=changes[-1].next_sequence,
        sequence=np.concatenate(sequences),
        symbol=np.concatenate([each.symbol for each in ticks]),
        price=np.concatenate([each.price for each in ticks]),
        volume=np.concatenate([each.volume for each in ticks]),
        exchange_timestamp=np.concatenate([each.exchange_timestamp for each in ticks]),
        ingest_timestamp=np.concatenate([each.ingest_timestamp for each in ticks]),
    )
