"""Settings of the `store` command, `[store]`."""

from __future__ import annotations

from dataclasses import dataclass

from mdtool.core.config import setting
from mdtool.services.metrics import metrics_port


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """The store of a command."""

    store: str | None = setting(
        None,
        "The store: sqlite:///PATH, postgresql://HOST/NAME or mongodb://HOST/NAME; by default that "
        "of `serve all`.",
        is_common=True,
        example="postgresql://HOST/NAME",
    )
    keep: str = setting(
        "",
        "What `store prune`, `store --bus` and `aggregate --store` keep: trades younger than an "
        "age, up to a size, or both, such as 90d,20GB; by default everything.",
        example="90d,20GB",
    )
    metrics_port: int | None = metrics_port()
