"""The audit log: its lines, and its rotation by several processes."""

import json

import pytest

from mdtool.adapters.audit import AuditConfig, AuditLog


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


def lines(*paths):
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


async def test_what_a_client_sends_stays_on_its_line(path):
    log = AuditLog(AuditConfig(file=str(path)), "gateway")
    log.note("sub:a", "10.0.0.7", 'GET /x\n{"allowed": true}', "why\r\n\x1b[31m")
    log.note("sub:a", "10.0.0.7", "x" * 100_000)
    log.close()
    refused, long = lines(path)
    assert refused["what"] == 'GET /x\n{"allowed": true}'
    assert not refused["allowed"]
    assert long["allowed"]
    assert path.stat().st_size < 2_000
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kept", [0, 2])
async def test_services_that_share_a_file_rotate_it_together(path, kept):
    config = AuditConfig(file=str(path), max_bytes=1_000, kept=kept)
    services = {name: AuditLog(config, name) for name in ("gateway", "vwap")}
    for number in range(40):
        for log in services.values():
            log.note("key:a", "127.0.0.1", str(number))
            log.flush()
            assert path.stat().st_size <= 1_000
    for log in services.values():
        log.close()
    rotated = [path.with_name(f"audit.jsonl.{number}") for number in range(kept, 0, -1)]
    assert sorted(path.parent.iterdir()) == sorted([path, *rotated])
    found = [(line["what"], line["service"]) for line in lines(*rotated, path)]
    every = [(str(number), name) for number in range(40) for name in services]
    assert found == every[-len(found) :]
