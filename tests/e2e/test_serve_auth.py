"""`serve all` with authentication: its services trust each other, and clients need a token."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.support.supervised import FREE_PORTS, check, serve
from tests.support.tokens import Keys

pytestmark = pytest.mark.usefixtures("no_settings")


def status(url, token=None):
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        with urlopen(Request(url, headers=headers)) as answer:
            return answer.status
    except HTTPError as error:
        return error.code


@pytest.mark.parametrize("mode", [(), ("--processes",)])
def test_services_trust_each_other_and_clients_need_a_token(tmp_path, monkeypatch, mode):
    keys = Keys(tmp_path)
    keys.configure(monkeypatch)
    file = tmp_path / "all.token"
    file.write_text(keys["all"] + "\n")
    with serve("all", "-J", *FREE_PORTS, *mode) as services:
        addresses = services.addresses(4)
        done = check(addresses, "--token-file", str(file))
        assert done.returncode == 0, done.stderr
        assert "client to vwap, published" in done.stdout
        done = check(addresses)
        assert done.returncode == 1
        assert "token: missing" in done.stderr
        gateway = addresses["gateway"].removeprefix("http://")
        for path, without, with_token in (
            ("/livez", 200, 200),
            ("/readyz", 200, 200),
            ("/api/v2/aggregates", 401, 200),
            ("/metrics", 401, 200),
        ):
            assert status(f"http://{gateway}{path}") == without
            assert status(f"http://{gateway}{path}", keys["all"]) == with_token
        commands = b"".join(
            Path(f"/proc/{pid}/cmdline").read_bytes() for pid in services.pids().values()
        )
        said = "".join(services.lines)
    assert keys["all"] not in said
    assert not re.search(r"services.secret", said + commands.decode(), re.IGNORECASE)


@pytest.mark.parametrize("options", [["--gateway-host", "0.0.0.0"], ["--vwap-host", "::"]])
def test_a_listener_beyond_this_machine_needs_a_word_about_authentication(options):
    with serve("all", *FREE_PORTS, *options) as services:
        assert services.end() == 2
        said = services.lines[-1]
    assert "would listen on" in said
    assert "--auth none" in said


def test_send_reads_its_token_from_a_file(tmp_path):
    missing = subprocess.run(
        [sys.executable, "-m", "mdtool", "send", "--token-file", "none", "--simulate", "-l", "1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert missing.returncode == 1
    assert missing.stderr.startswith("mdtool: ")
    assert "a token" in missing.stderr
    assert len(missing.stderr.splitlines()) == 1
