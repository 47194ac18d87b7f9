"""The clients that docs/gateway.md shows, against running services."""

from __future__ import annotations

import ast
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.browser import chromium
from tests.support.processes import ChildProcess
from tests.support.supervised import FREE_PORTS, serve

pytestmark = pytest.mark.usefixtures("no_settings")

PAGE = Path(__file__).parents[2] / "docs" / "gateway.md"
CLIENT = re.compile(r"^<!-- client -->\n```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CLIENTS = CLIENT.findall(PAGE.read_text("utf-8"))
ADDRESS = "http://localhost:8080"
MAX_LINES = 10
LINES = 3
"""Of a client's output that are looked at."""


@pytest.fixture
def gateway():
    """The address of a gateway in a simulated market."""
    with serve("all", "--simulate", "-J", *FREE_PORTS) as services:
        yield f"http://{services.addresses(4)['gateway']}"


def clients(language, gateway):
    """The clients of a language, for a gateway: of REST and of `/stream`."""
    texts = [text for name, text in CLIENTS if name == language]
    for text in texts:
        assert ADDRESS in text
        assert len([line for line in text.splitlines() if line]) <= MAX_LINES
    by_path = {"/stream" if "/stream" in text else "/api/v2": text for text in texts}
    assert len(by_path) == len(texts) == 2
    return [by_path[path].replace(ADDRESS, gateway) for path in ("/stream", "/api/v2")]


def first_lines(text):
    """The first lines that a Python client prints."""
    command = [sys.executable, "-u", "-c", text]
    with ChildProcess(command, stdout=subprocess.PIPE, text=True) as process:
        lines = list(itertools.islice(process.stdout, LINES))
        process.terminate()
    return lines


async def test_clients_receive_what_they_request(gateway):
    for text in clients("python", gateway):
        check(text, [ast.literal_eval(line) for line in first_lines(text)])
    async with chromium() as tab:
        await tab.open(f"{gateway}/health")
        for text in clients("js", gateway):
            check(text, [json.loads(line) for line in await tab.run(recorded(text))])


def check(text, lines):
    """Check what a client printed: replies and aggregates, or bars."""
    if "/stream" in text:
        assert (lines[0]["id"], lines[0]["ok"]) == (1, True)
        assert lines[-1]["symbol"] == lines[-1]["data"]["symbol"] == "AAPL"
    else:
        assert lines
        assert all({"open", "close"} <= line.keys() for line in lines)


def recorded(text):
    """JavaScript that runs a client until it has logged a few lines, and returns them."""
    return f"""(async () => {{
        const lines = [];
        let stop;
        const enough = new Promise((resolve) => {{ stop = resolve; }});
        const console = {{ log(line) {{ if (lines.push(line) === {LINES}) stop(); }} }};
        {text}
        if (typeof socket !== "undefined") {{
            await enough;
            socket.close();
        }}
        return lines;
    }})()"""
