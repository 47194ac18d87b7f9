"""What a live source has brought, by name, and in words."""

from __future__ import annotations

from collections import Counter
from typing import Final

from mdtool.core.units import counted

REFUSED: Final = ("symbol", "price", "size", "lot", "timestamp", "malformed")
"""Why something was refused."""
TOTALS: Final = {
    "trades": "Trades received.",
    "quotes": "Quotes received.",
    "records": "Records received of any kind, where the source sends DBN.",
    "duplicates": "Trades left out that the source had sent before.",
    "irregular": "Trades left out for their conditions.",
    "gaps": "Times at which the stream may lack records.",
    "notes": "Corrections and cancellations of trades.",
}
"""What is counted besides."""


def described(counts: Counter[str]) -> str:
    """Return counts in words, such as `1,203 trades, 2 gaps; refused 1 lot`."""
    totals = [_counted(counts[name], name) for name in TOTALS if counts[name]]
    refused = [f"{counts[reason]:,} {reason}" for reason in REFUSED if counts[reason]]
    said = ", ".join(totals) or "nothing"
    return f"{said}; refused {', '.join(refused)}" if refused else said


def _counted(count: int, name: str) -> str:
    return counted(count, name[:-1]) if name.endswith("s") else f"{count:,} {name}"
