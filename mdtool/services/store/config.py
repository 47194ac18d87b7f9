"""Settings of the `store` command, `[store]`."""

from __future__ import annotations

from dataclasses import dataclass

from mdtool.core.config import setting
from mdtool.core.data_folder import store_url


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Which store it is about."""

    store: str | None = setting(
        None,
        "The store: sqlite:///PATH or postgresql://HOST/NAME; otherwise that of `serve all`.",
    )

    @property
    def url(self) -> str:
        """The store's URL."""
        return self.store or store_url()
