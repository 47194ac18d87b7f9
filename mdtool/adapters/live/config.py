"""Settings of live sources, `[ingest]`. Keys are none of them: see `keys`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mdtool.core.config import setting
from mdtool.core.errors import UsageError
from mdtool.core.units import UNDEF_PRICE, fixed_point

REGULAR: Final = "regular"
CONDITIONS: Final = ("all", REGULAR)


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """What to take of a live source, and how long to wait for it."""

    schema: str = setting(
        "",
        "Schemas, separated by commas; by default trades, and mbp-1 where a source has quotes.",
        is_common=True,
    )
    conditions: str = setting(
        CONDITIONS[0],
        "Trades that count: all, or those whose conditions are regular.",
        choices=CONDITIONS,
        is_common=True,
    )
    lot: str = setting(
        "",
        "Steps of sizes that go before the source's: SYMBOL=STEP, separated by commas.",
        is_common=True,
    )
    dataset: str = setting(
        "",
        "Dataset of databento, such as XNAS.ITCH; feed of alpaca: iex, sip or test.",
        is_common=True,
    )
    stype_in: str = setting("raw_symbol", "Type of the symbols of databento.")
    keys: str = setting(
        "",
        "File of mode 0600 with keys, NAME=VALUE on each line, instead of the environment.",
        is_common=True,
    )
    record: str = setting("", "Folder in which to store the raw messages too.", is_common=True)
    replay: str = setting(
        "", "Folder of recorded messages to run again, instead of connecting.", is_common=True
    )
    gateway: str = setting("", "Another gateway of databento: HOST:PORT.", is_common=True)
    url: str = setting("", "Another server of a WebSocket source: ws://HOST:PORT.")
    silence_s: float = setting(
        30.0, "How long a connection may be silent before it is given up.", low=0.01
    )
    max_wait_s: float = setting(30.0, "The longest wait between attempts to connect.", low=0.01)
    metrics_port: int | None = setting(
        None, "Port of 127.0.0.1 with Prometheus metrics.", low=1, high=65535, example=9464
    )

    def lots(self) -> dict[str, int]:
        """Return the steps of `lot`, in units of 1e-9, by symbol.

        Raises
        ------
        UsageError
            When one is not SYMBOL=STEP, or not a decimal above 0 of up to nine decimals.
        """
        steps = {}
        for text in filter(None, map(str.strip, self.lot.split(","))):
            symbol, _, step = text.rpartition("=")
            units = fixed_point(step)
            if not symbol or not units or not 0 < units < UNDEF_PRICE:
                raise UsageError(f"--lot {text}: is not SYMBOL=STEP, such as BTC/USD=0.00000001")
            steps[symbol] = units
        return steps
