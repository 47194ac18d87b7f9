"""`mdtool info`: what a file is, from its beginning or from all of it."""

from __future__ import annotations

import gzip
import json

import numpy as np
import zstandard

from mdtool.wire.dbn import encode_records
from tests.reference import dbn_streams as streams
from tests.support.commands import completed

HOUR_NS = 3600 * 10**9


def info(*arguments, stdin=b"", status=0):
    done = completed("info", *arguments, "--json", stdin=stdin)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def test_the_header_and_the_first_records(tmp_path):
    path = tmp_path / "day.dbn.zst"
    stream = streams.header() + encode_records(streams.mbo(100_000))
    path.write_bytes(zstandard.compress(stream))
    found = info(path)
    assert (found["dataset"], found["schema"], found["schemas"]) == ("TEST", "mbo", ["mbo"])
    assert (found["version"], found["compression"]) == (3, "zstd")
    assert found["size_bytes"] == path.stat().st_size
    assert found["first_timestamp"] is not None
    assert {each["name"] for each in found["mappings"]} == set(found["symbols"])
    assert "records" not in found


def test_all_records(tmp_path):
    path = tmp_path / "capture.dbn"
    orders, late = streams.mbo(3, step_ns=2 * HOUR_NS), streams.trades(4)
    path.write_bytes(
        streams.header(None)
        + streams.mapping(1, "AAPL")
        + bytes(encode_records(orders))
        + bytes(encode_records(late))
    )
    found = info(path, "--deep")
    assert found["schema"] is None
    assert found["counts"] == {"mbo": 3, "symbol-mapping": 1, "trades": 4}
    assert found["records"] == 8
    assert found["backwards"] == 1
    assert [gap["duration"] for gap in found["gaps"]] == ["2h", "2h"]
    assert found["n_gaps"] == 2
    times = np.concatenate([orders["ts_recv"], late["ts_recv"]])
    assert found["first_timestamp"] < found["last_timestamp"]
    assert found["last_timestamp"] == found["gaps"][1]["end"]
    assert times.max() == orders["ts_recv"][-1]
    assert found["mappings"][-1]["name"] == "AAPL"
    assert found["is_whole"]
    assert info(path, "--deep", "--gap", "3h")["gaps"] == []


def test_a_pipe_and_a_file_that_breaks_off(tmp_path):
    stream = streams.header("trades") + bytes(encode_records(streams.trades(9)))
    assert info("-", stdin=stream)["schemas"] == ["trades"]
    found = info("-", "--deep", stdin=stream[:-5], status=1)
    assert (found["records"], found["is_whole"]) == (8, False)


def test_text_for_people(tmp_path):
    path = tmp_path / "day.dbn"
    path.write_bytes(streams.header() + encode_records(streams.mbo(3)))
    text = completed("info", path, "--deep").stdout.decode()
    assert text.startswith(f"{path}\n  size bytes")
    assert "  counts          mbo 3\n" in text


def test_what_is_not_a_stream_is_reported_in_one_line(tmp_path):
    (tmp_path / "x").write_bytes(b"time,price\n")
    for path in (tmp_path / "x", tmp_path / "none"):
        done = completed("info", path)
        assert done.returncode == 1
        assert done.stderr.count(b"\n") == 1


def test_headers_and_unknown_records_are_counted(tmp_path):
    path = tmp_path / "joined.dbn.gz"
    one = streams.header() + bytes(encode_records(streams.mbo(2))) + bytes([4, 200]) + bytes(14)
    path.write_bytes(gzip.compress(one) + gzip.compress(one))
    found = info(path, "--deep")
    assert found["counts"] == {"mbo": 4, "rtype-200": 2}
    assert (found["headers"], found["compression"], found["is_whole"]) == (2, "gzip", True)
