"""Compiles the kernels of an image: it runs what uses them, once: kernels.py SAMPLES."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

COMMANDS: Final = (
    "simulate --limit 1000 -o orders.dbn",
    "simulate --limit 1000 --schema trades -o trades.dbn",
    "simulate --limit 1000 --schema mbp-1 -o quotes.dbn",
    "simulate --symbols A,B,C,D,E,F,G,H,I,J,K,L --limit 9000 -o many.dbn",
    "book many.dbn --json",
    "book {samples}/mbo.dbn.zst --json",
    "book {samples}/mbo.dbn.zst --emit event -o events.dbn",
    "book {samples}/mbo.dbn.zst --emit 1s --json",
    "book verify {samples}/mbo.dbn.zst",
    "vwap {samples}/trades.dbn.zst --window 100 -J",
    "vwap {samples}/trades.dbn.zst --window 5m -J",
    "aggregate {samples}/trades.dbn.zst --interval 1s -J",
    "aggregate {samples}/trades.dbn.zst --by volume=1000 -J",
    "aggregate orders.dbn trades.dbn -J",
    "store {samples}/trades.dbn.zst --store sqlite:///trades.db",
    "store check --store sqlite:///trades.db",
)
"""Commands on files, in an empty folder."""
_OTHERS: Final = (
    "detect {samples}/trades.dbn.zst",
    "detect {samples}/mbo.dbn.zst",
    "digest {samples}/trades.dbn.zst",
    "digest {samples}/mbo.dbn.zst --of books",
    "replay-dbn {samples}/trades.dbn.zst --csv",
)
_NAMES: Final = ("serve-tcp", "aggregate", "vwap", "gateway")
_SERVICES: Final = "serve all -J --store sqlite:///market.db"
_FORMS: Final = (
    "--simulate --rate 5000 --live {samples}/mbo.dbn.zst --live-gateway-port 0",
    "--simulate --rate 5000 --processes",
    "--replay {samples}/trades.dbn.zst --speed 0",
)
"""Services in one process and in several give kernels arrays of other kinds."""


def main() -> None:
    """Run all of them."""
    samples = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        for command in (*COMMANDS, *_OTHERS):
            done = _run(command.format(samples=samples).split(), folder)
            if done.returncode:
                sys.exit(f"mdtool {command}: {done.stderr}")
        for form in _FORMS:
            _serve(f"{_SERVICES} {form}".format(samples=samples).split(), folder)


def _run(arguments: list[str], folder: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mdtool", *arguments]
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)


def _serve(arguments: list[str], folder: str) -> None:
    """Run services on free ports until a check of them has passed."""
    free = [f"--{name}-port=0" for name in _NAMES]
    command = [sys.executable, "-m", "mdtool", *arguments, *free]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as services:
        assert services.stdout is not None
        where: dict[str, str] = {}
        while not where.keys() >= set(_NAMES):
            ready = json.loads(services.stdout.readline())
            where[ready["service"]] = next(iter(ready["addresses"].values()))
        ports = [f"--{name}-port={where[name].rpartition(':')[2]}" for name in _NAMES]
        done = _run(["serve", "--check", *ports], folder)
        services.send_signal(signal.SIGTERM)
    if done.returncode:
        sys.exit(f"mdtool serve --check: {done.stderr}")


if __name__ == "__main__":
    main()
