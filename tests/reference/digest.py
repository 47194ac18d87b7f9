"""The digest of rows in plain Python: what `engine/digest.py` has to give."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable

_WORD = 2**64


def row_hash(seed: int, values: Iterable[int]) -> int:
    """Return half of a row's hash."""
    state = seed
    for value in values:
        state ^= value % _WORD
        state ^= state >> 30
        state = state * 0xBF58476D1CE4E5B9 % _WORD
        state ^= state >> 27
        state = state * 0x94D049BB133111EB % _WORD
        state ^= state >> 31
    return state


def digests(kind: str, rows: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, str]:
    """Return the digest of each symbol's rows, and of all under the empty symbol."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    counts: Counter[str] = Counter()
    for symbol, values in rows:
        counts[symbol] += 1
        for half, seed in enumerate((0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)):
            sums[symbol][half] = (sums[symbol][half] + row_hash(seed, values)) % _WORD
    found = {
        symbol: _hash(f"{kind} {symbol} {counts[symbol]} {first:016x}{second:016x}")
        for symbol, (first, second) in sorted(sums.items())
    }
    all_of_them = "\n".join([kind, *(f"{symbol} {found[symbol]}" for symbol in found)])
    return {**found, "": _hash(all_of_them)}


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
