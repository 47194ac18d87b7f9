"""The changes of a market, collected into the steps that a store writes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdtool.adapters.stores.port import Step, StreamRun
from mdtool.core.trades import TradeRun, Trades
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
        market.hold_past()
        self._commit = market.commit
        self._bar_step = market.bars.step
        self._known_lots = market.symbols.lots

    def take(self, changes: Sequence[Change]) -> Step:
        """Return the step of `changes`, which are all since the latest step.

        It is a copy, which the market no longer changes.
        """
        market = self._market
        changed = market.changed_since(self._commit)
        bars = np.concatenate(
            [market.bars.saved_since(self._bar_step, changed), market.past_since(self._commit)]
        )
        self._commit, self._bar_step = market.commit, market.bars.step
        lots = market.symbols.lots_since(self._known_lots)
        self._known_lots += len(lots)
        streams: dict[str, list[TradeRun]] = {}
        for change in changes:
            if change.run.frames.count:
                streams.setdefault(change.run.stream_id, []).append(change.run)
        return Step(
            # Indices of symbols never change: the table may grow while the step is written.
            symbols=market.symbols,
            runs=[_joined(runs) for runs in streams.values()],
            changed=changed,
            sessions=market.sessions(changed),
            bars=bars,
            counts=market.totals(),
            lots=dict(lots),
        )


def _joined(runs: Sequence[TradeRun]) -> StreamRun:
    """Return consecutive runs of a stream as one."""
    sequences = [run.first_sequence + run.frames.offset.astype(np.int64) for run in runs]
    return StreamRun(
        stream_id=runs[0].stream_id,
        first_sequence=runs[0].first_sequence,
        next_sequence=runs[-1].next_sequence,
        sequence=np.concatenate(sequences),
        trades=Trades.concatenate([run.trades for run in runs]),
    )
