"""The clients that docs/gateway.md and docs/protocols.md show, against running services."""

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

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "gateway.md"
CLIENT = re.compile(r"^<!-- client -->\n```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CLIENTS = CLIENT.findall(PAGE.read_text("utf-8"))
OF_PROTOCOLS = CLIENT.findall((ROOT / "docs" / "protocols.md").read_text("utf-8"))
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


def first_lines(text, folder=None):
    """The first lines that a Python client prints, which runs in a folder."""
    command = [sys.executable, "-u", "-c", text]
    with ChildProcess(command, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
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


def test_clients_of_the_protocols_send_and_receive_with_the_schemas(tmp_path):
    outputs = [f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}"]
    schemas = [str(path) for path in (ROOT / "proto").glob("*.proto")]
    command = ["-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", *outputs, *schemas]
    subprocess.run([sys.executable, *command], check=True)
    [(_, sender), (_, follower)] = OF_PROTOCOLS
    assert all(len([*filter(None, text.splitlines())]) <= MAX_LINES for text in (sender, follower))
    with serve("all", "--simulate", "-J", *FREE_PORTS) as services:
        where = services.addresses(4)
        host, _, port = where["serve-tcp"].rpartition(":")
        sender = sender.replace('("localhost", 50050)', repr((host, int(port))))
        assert first_lines(sender, tmp_path) == ["Accepted 1 tick, refused 0\n"]
        follower = follower.replace("localhost:50051", where["aggregate"])
        for line in first_lines(follower, tmp_path):
            symbol, close, volume, timestamp = line.split()
            assert symbol == "AAPL"
            assert float(close) > 0
            assert int(volume) > 0
            assert int(timestamp) > 1 << 60
