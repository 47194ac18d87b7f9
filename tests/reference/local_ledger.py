"""A ledger as the market that services of its process reach."""

from __future__ import annotations

from mdtool.adapters.market import UnavailableError
from mdtool.core.errors import PeerError


class LedgerMarket:
    """Takes one run at a time; it breaks off when it was told to lose an acknowledgement."""

    def __init__(self, ledger) -> None:
        self._ledger = ledger

    async def accept(self, symbols, runs, acknowledge) -> None:
        async for run in runs:
            if self._ledger.refusal is not None:
                raise PeerError("told to")
            next_sequence = await self._ledger.commit(
                run.stream_id, run.first_sequence, run.frames, symbols
            )
            if self._ledger.loses_ack:
                self._ledger.loses_ack = False
                raise UnavailableError("told to")
            acknowledge(run.stream_id, next_sequence)

    async def position(self, stream_id):
        return self._ledger.position(stream_id) or 0

    async def own(self, stream_id, principal):
        return self._ledger.own(stream_id, principal)
