"""How fast messages of a live source become DBN: recorded Kraken trades, parsed and written."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mdtool.bench.figures import Figure, in_turns
from mdtool.bench.processes import cpu_s, run_command
from mdtool.core.units import format_time

MESSAGES: Final = 500_000
_ROUNDS: Final = 3
_BEGIN_NS: Final = 1_796_169_600_000_000_000
_STEP_NS: Final = 1_234_567
_INSTRUMENTS: Final = (
    '{"channel":"instrument","type":"snapshot","data":{"pairs":'
    '[{"symbol":"BTC/USD","qty_increment":0.00000001}]}}'
)


def ingest_kraken(messages: int = MESSAGES, rounds: int = _ROUNDS) -> Figure:
    """Return messages of one trade each that the command takes a second of CPU, its start included.

    The baseline decodes the same messages with the standard library's `json`, and does no more.
    """
    with tempfile.TemporaryDirectory() as folder:
        texts = list(_trades(messages))
        _record(Path(folder) / "kraken-bench.tsv", texts)
        command = ("ingest", "kraken", "--replay", folder, "-q", "-D")
        run_command(*command)
        pairs = [
            (
                messages / cpu_s(lambda: run_command(*command)),
                messages / cpu_s(lambda: _plain(texts)),
            )
            for _ in range(rounds)
        ]
    return in_turns("ingest_kraken", "messages/s", "json.loads of the same, alone", pairs)


def _plain(texts: list[str]) -> None:
    for text in texts:
        json.loads(text)


def _trades(count: int) -> Iterator[str]:
    for n in range(count):
        when = format_time(_BEGIN_NS + n * _STEP_NS)[:-4]
        yield (
            '{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":'
            f'"{("buy", "sell")[n % 2]}","price":{97_000 + n % 1_000}.{n % 10},"qty":'
            f'0.{n * 7_919 % 100_000_000:08d},"ord_type":"market","trade_id":{80_000_000 + n},'
            f'"timestamp":"{when}Z"}}]}}'
        )


def _record(path: Path, texts: list[str]) -> None:
    with path.open("w") as file:
        file.write(f"{_BEGIN_NS}\tsource\tkraken BTC/USD\n{_BEGIN_NS}\topened\t\n")
        file.write(f"{_BEGIN_NS}\tmessage\t{_INSTRUMENTS}\n")
        for n, text in enumerate(texts):
            file.write(f"{_BEGIN_NS + n * _STEP_NS}\tmessage\t{text}\n")
