"""How well and how fast detectors find what is unusual."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from mdtool.adapters.dbn_files import open_source
from mdtool.adapters.simulated import SimulatedSource
from mdtool.bench.book import order_stream
from mdtool.bench.figures import Figure, in_turns
from mdtool.core.batch import Batch
from mdtool.core.units import NS_PER_S
from mdtool.engine.book.state import Books
from mdtool.engine.detect import KINDS, Alert, DetectStream, Rules
from mdtool.engine.market_faults import Fault, FaultyMarket, Label, parse_faults
from mdtool.engine.simulate import TICK, Exchange
from mdtool.engine.simulate_defaults import SYMBOLS

SEEDS: Final = 12
RECORDS: Final = 4_000_000
_RATES: Final = (200.0, 1_000.0, 5_000.0)
"""Events a second of the markets, in turns."""
_FIRST_S, _SLOT_S, _LAST_S = 180, 40, 900
"""Faults begin this late, this far apart, and not later."""
_DURATION_S: Final = 1_200
_SLOW: Final = "band"
"""The kind whose faults last for minutes; they have a symbol of their own."""
_GRACE_NS: Final = 2 * NS_PER_S
"""An alert may come so long after its fault."""
_NS_PER_HOUR: Final = 3_600 * NS_PER_S
_CHUNK: Final = 1 << 16
_ROUNDS: Final = 5


def measure(seeds: int = SEEDS, records: int = RECORDS) -> list[Figure]:
    """Return precision and recall of each kind, false alarms an hour, and records a second.

    Precision and recall are of markets with faults whose labels are known, over seeds and rates, at
    default settings. The files that MDTOOL_TEST_DATA has are taken to be without faults.
    """
    return [*_accuracy(seeds), *_false_alarms(), _speed(records)]


def _accuracy(seeds: int) -> list[Figure]:
    right: Counter[str] = Counter()
    alerts: Counter[str] = Counter()
    found: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    for seed in range(seeds):
        exchange = Exchange(SYMBOLS, seed, _RATES[seed % len(_RATES)])
        faults = FaultyMarket(
            _planned(seed), exchange.instruments, exchange.start_ns, TICK, "mbp-1"
        )
        source = SimulatedSource(exchange, "mbp-1", _DURATION_S * NS_PER_S, faults=faults)
        raised = _alerts(source)
        for alert in raised:
            alerts[alert.kind] += 1
            right[alert.kind] += any(_fits(alert, label) for label in faults.labels)
        for label in faults.labels:
            labels[label.kind] += 1
            found[label.kind] += any(_fits(alert, label) for alert in raised)
    figures = []
    for kind in KINDS:
        name = kind.replace("-", "_")
        precision = right[kind] / alerts[kind] if alerts[kind] else 0.0
        recall = found[kind] / labels[kind] if labels[kind] else 0.0
        figures += [
            Figure(f"detect_{name}_precision", precision, f"of {alerts[kind]} alerts"),
            Figure(f"detect_{name}_recall", recall, f"of {labels[kind]} faults"),
        ]
    return figures


def _planned(seed: int) -> list[Fault]:
    """Return the faults of a market: in each slot one, of kinds and symbols in a random order."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    *symbols, slow = SYMBOLS
    slots = range(_FIRST_S, _LAST_S, _SLOT_S)
    kinds = [kind for kind in KINDS if kind != _SLOW]
    kinds = (kinds * (len(slots) // len(kinds) + 1))[: len(slots)]
    chance.shuffle(kinds)
    planned = [
        f"{kind}@{slot + chance.randrange(_SLOT_S // 4)}s/{chance.choice(symbols)}"
        for slot, kind in zip(slots, kinds, strict=True)
    ]
    planned += [f"{_SLOW}@{at}s/{slow}" for at in (_FIRST_S, _DURATION_S // 2)]
    return parse_faults(",".join(planned), SYMBOLS)


def _fits(alert: Alert, label: Label) -> bool:
    """Return whether an alert is of a fault. A gap may show first in another symbol."""
    is_of = alert.kind == label.kind and (alert.symbol == label.symbol or label.kind == "gap")
    return (
        is_of
        and alert.begin_ns <= label.end_ns + _GRACE_NS
        and alert.end_ns >= label.begin_ns - _GRACE_NS
    )


def _alerts(batches: Iterable[Batch]) -> list[Alert]:
    stream = DetectStream(Rules())
    found = [alert for batch in batches for alert in stream.update(batch)]
    return [*found, *stream.finish()]


def _false_alarms() -> list[Figure]:
    """Return the alerts an hour of each kind on files of real markets, where there are any."""
    folder = os.environ.get("MDTOOL_TEST_DATA")
    if not folder:
        return []
    alerts: Counter[str] = Counter()
    hours = 0.0
    for path in sorted([*Path(folder).glob("*.dbn"), *Path(folder).glob("*.dbn.zst")]):
        with open_source(str(path)) as source:
            stream = DetectStream(Rules())
            begin_ns, end_ns = 0, 0
            for batch in source:
                alerts.update(alert.kind for alert in stream.update(batch))
                begin_ns, end_ns = begin_ns or stream.first_ns, stream.latest_ns
            alerts.update(alert.kind for alert in stream.finish())
        hours += (end_ns - begin_ns) / _NS_PER_HOUR
    return [
        Figure(
            f"detect_{kind.replace('-', '_')}_false_alarms",
            alerts[kind] / hours,
            "an hour",
            "lower",
        )
        for kind in KINDS
    ]


def _speed(records: int) -> Figure:
    """Return how many MBO records a second of one core pass all detectors, books included."""
    stream = order_stream(records)
    parts = [stream[begin : begin + _CHUNK] for begin in range(0, len(stream), _CHUNK)]
    _detected(parts[:1])
    pairs = []
    for _ in range(_ROUNDS):
        begun_s = time.process_time()
        _detected(parts)
        detected_s = time.process_time() - begun_s
        begun_s = time.process_time()
        books = Books()
        for part in parts:
            books.apply(part)
        pairs.append((len(stream) / detected_s, len(stream) / (time.process_time() - begun_s)))
    return in_turns("detect_records", "records/s", "the order books alone", pairs)


def _detected(parts: Sequence[Batch]) -> None:
    stream = DetectStream(Rules())
    for part in parts:
        for _ in stream.update(part):
            pass
