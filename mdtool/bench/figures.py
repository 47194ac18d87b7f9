"""A measured figure and the baseline that it was measured against."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


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
        What it was compared with in the same run, and how that came out, in `unit`.
    ratio : float or None
        How many times better than the baseline; above 1 is better whichever way is good. Where
        both were measured in turns it is the median of the pairs' ratios, for what else a machine
        does falls on both of a pair; that need not be the quotient of the two medians.
    """

    name: str
    value: float
    unit: str
    better: Literal["higher", "lower"] = "higher"
    baseline: str | None = None
    baseline_value: float | None = None
    ratio: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the figure as JSON takes it, without what it does not have."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def against(
    name: str,
    value: float,
    unit: str,
    baseline: str,
    baseline_value: float,
    better: Literal["higher", "lower"] = "higher",
) -> Figure:
    """Return a figure with its ratio to a baseline."""
    ratio = value / baseline_value if better == "higher" else baseline_value / value
    return Figure(name, value, unit, better, baseline, baseline_value, ratio)
