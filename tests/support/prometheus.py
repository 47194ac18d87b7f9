"""A Prometheus that scrapes services, and answers queries."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.requirements import needs


@contextlib.contextmanager
def prometheus(
    folder: Path, targets: Mapping[str, str], port: int, every: str = "1s"
) -> Iterator[Callable[[str], list[object]]]:
    """Scrape the addresses of services, by their names; yield a function that queries it."""
    jobs = [
        f"      - targets: ['{address}']\n        labels: {{service: {name}}}\n"
        for name, address in targets.items()
    ]
    config = folder / "prometheus.yml"
    config.write_text(
        f"global: {{scrape_interval: {every}, scrape_timeout: {every}}}\nscrape_configs:\n"
        f"  - job_name: mdtool\n    static_configs:\n{''.join(jobs)}"
    )

    def query(expression: str) -> list[object]:
        return ask("query?" + urllib.parse.urlencode({"query": expression}))["result"]

    with configured(config, port) as ask:
        yield query


@contextlib.contextmanager
def configured(config: Path, port: int) -> Iterator[Callable[[str], Any]]:
    """Run one with a configuration; yield a function that gets a path of its API."""
    folder = config.parent
    command = [
        needs("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]

    def ask(path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}") as answer:
            return json.load(answer)["data"]

    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield ask
        finally:
            process.terminate()
            process.wait()
