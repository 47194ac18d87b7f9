"""A measured figure, and the baseline of the same run that it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement.

    Attributes
    ----------
    name : str
        Its name within its bench, as `--fail-under NAME=VALUE` takes it.
    value : float
        In `unit`.
    better : {"higher", "lower"}
        Which way is good.
    baseline, baseline_value : str and float, or None
        What it was compared with in the same run, and the value of that, in `unit`.
    ratio : float or None
        How many times better than the baseline; above 1 is better whichever way is good. Where
        both were measured in turns it is the median of the pairs' ratios, since other load of the
        machine affects both of a pair; that need not be the quotient of the two medians.
    """

    name: str
    value: float
    unit: str
    better: Better = "higher"
    baseline: str | None = None
    baseline_value: float | None = None
    ratio: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the figure for JSON, without absent values."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def against(
    name: str,
    value: float,
    unit: str,
    baseline: str,
    baseline_value: float,
    better: Better = "higher",
) -> Figure:
    """Return a figure with its ratio to a baseline."""
    return Figure(
        name, value, unit, better, baseline, baseline_value, _ratio(value, baseline_value, better)
    )


def in_turns(
    name: str,
    unit: str,
    baseline: str,
    pairs: Sequence[tuple[float, float]],
    better: Better = "higher",
) -> Figure:
    """Return the medians of pairs, each measured in turns with its baseline, and of their ratios.

    Parameters
    ----------
    pairs : sequence of (float, float)
        The value and the baseline's value of each round.
    """
    values, baseline_values = zip(*pairs, strict=True)
    ratio = median(_ratio(value, other, better) for value, other in pairs)
    return Figure(name, median(values), unit, better, baseline, median(baseline_values), ratio)


def _ratio(value: float, baseline_value: float, better: Better) -> float:
    return value / baseline_value if better == "higher" else baseline_value / value
