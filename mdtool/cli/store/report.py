"""What a command says of trades that it brought into a store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mdtool.core.units import counted

if TYPE_CHECKING:
    from mdtool.core.trades import Reason
    from mdtool.services.store.keeping import Keeper


def kept(name: str, keeper: Keeper, left_out: Mapping[Reason, int]) -> str:
    """Return the line that ends a command: what is new, was known, and was left out and why."""
    reasons = {reason.label: count for reason, count in sorted(left_out.items())}
    if keeper.no_room:
        reasons["no room for its symbol"] = keeper.no_room
    line = (
        f"{name}: {counted(keeper.new, 'trade')} new, {keeper.known:,} known already, "
        f"{sum(reasons.values()):,} left out"
    )
    if reasons:
        line += f" ({', '.join(f'{label} {count:,}' for label, count in reasons.items())})"
    if keeper.late:
        line += f"; {keeper.late:,} of the new ones too old for bars"
    return line
