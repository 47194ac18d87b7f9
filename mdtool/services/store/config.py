"""Settings of the `store` command, `[store]`."""

from __future__ import annotations

from dataclasses import dataclass

from mdtool.core.config import setting


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Which store it is about."""

    store: str | None = setting(
        None,
        "The store: sqlite:///PATH or postgresql://HOST/NAME; by default that of `serve all`.",
    )
