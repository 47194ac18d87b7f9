"""Streams whose gateway says when it sent each record: `ts_out` goes wherever the records go."""

from __future__ import annotations

import functools
import io
import itertools
import json

import databento_dbn as dbn
import numpy as np
import pyarrow.parquet
import pytest

import mdtool
from mdtool.core.records import with_ts_out
from mdtool.core.units import UNDEF_TIMESTAMP
from mdtool.wire.dbn import DbnDecoder, encode_metadata, encode_records
from tests.reference import dbn_streams as streams
from tests.support.commands import completed, output_of

replay = functools.partial(output_of, "replay-dbn")
LATENCY_NS = 40_000


def sent_header(schema="mbo") -> bytes:
    plain = streams.metadata(schema)
    return encode_metadata(
        dbn.Metadata(
            dataset=plain.dataset,
            start=plain.start,
            stype_in=plain.stype_in,
            stype_out=plain.stype_out,
            schema=plain.schema,
            ts_out=True,
        )
    )


def sent(*parts) -> bytes:
    """Records as a gateway sends them."""
    return b"".join(
        bytes(encode_records(with_ts_out(part, part["ts_event"] + np.uint64(LATENCY_NS))))
        for part in parts
    )


def times(data: bytes) -> list[int]:
    """The ts_out of each record of a stream, as databento_dbn reads it."""
    decoder = dbn.DBNDecoder()
    decoder.write(data)
    header, *records = decoder.decode()
    assert header.ts_out is True
    return [record.ts_out for record in records]


@pytest.fixture
def live(tmp_path):
    path = tmp_path / "live.dbn"
    path.write_bytes(sent_header() + sent(streams.mbo(40)))
    return path


def test_dbn_goes_through_as_it_is(live):
    assert replay(live) == live.read_bytes()
    assert replay("-", "-D", stdin=live.read_bytes()) == live.read_bytes()


def test_a_part_of_the_records_keeps_it(live):
    wanted = streams.mbo(40)[1:10:2]
    assert times(replay(live, "--symbols", "2", "-l", 5)) == [*(wanted["ts_event"] + LATENCY_NS)]


def test_trades_out_of_orders_keep_it(live):
    orders = streams.mbo(40)
    trades = orders[orders["action"] == b"T"]
    assert times(replay(live, "--schema", "trades")) == [*(trades["ts_event"] + LATENCY_NS)]


@pytest.mark.parametrize("encoding", ["csv", "json"])
@pytest.mark.parametrize("is_pretty", [False, True])
def test_text_is_what_databento_writes(live, encoding, is_pretty):
    text = io.BytesIO()
    transcoder = dbn.Transcoder(
        text,
        dbn.Encoding(encoding),
        dbn.Compression("none"),
        pretty_px=is_pretty,
        pretty_ts=is_pretty,
        map_symbols=False,
    )
    transcoder.write(live.read_bytes())
    transcoder.flush()
    assert replay(live, f"--{encoding}", *["-p"] * is_pretty) == text.getvalue()


def test_the_symbol_follows_it(live):
    header, first, *_ = replay(live, "-C", "-s", "-l", 1).decode().splitlines()
    assert header.endswith(",ts_out,symbol")
    ts_out = int(streams.mbo(1)["ts_event"][0]) + LATENCY_NS
    assert first.endswith(f",{ts_out},")


@pytest.mark.parametrize("name", ["f.parquet", "f.arrow"])
def test_it_is_a_column(live, tmp_path, name):
    path = tmp_path / name
    replay(live, "-o", path)
    if name == "f.parquet":
        table = pyarrow.parquet.read_table(path)
    else:
        table = pyarrow.ipc.open_file(path).read_all()
    ints = table["ts_out"].cast("int64").to_pylist()
    assert table["ts_out"].type == table["ts_event"].type
    assert ints == [*(streams.mbo(40)["ts_event"] + LATENCY_NS)]


class TestMerged:
    def test_with_others_that_have_it(self, live, tmp_path):
        later = tmp_path / "later.dbn"
        later.write_bytes(sent_header() + sent(streams.mbo(40, 20)))
        merged = np.concatenate([streams.mbo(40), streams.mbo(40, 20)])
        merged = merged[np.argsort(merged["ts_recv"], kind="stable")]
        assert times(replay(live, later)) == [*(merged["ts_event"] + LATENCY_NS)]

    def test_with_others_that_have_none_these_are_undefined(self, live, tmp_path):
        other = tmp_path / "other.dbn"
        other.write_bytes(streams.header() + encode_records(streams.mbo(40, 100)))
        known = [*(streams.mbo(40)["ts_event"] + LATENCY_NS)]
        assert times(replay(live, other)) == known + [UNDEF_TIMESTAMP] * 40
        overlapping = tmp_path / "overlapping.dbn"
        overlapping.write_bytes(streams.header() + encode_records(streams.mbo(40)))
        assert times(replay(overlapping, live)) == [
            *itertools.chain.from_iterable((UNDEF_TIMESTAMP, ts_ns) for ts_ns in known)
        ]

    def test_with_another_schema(self, live, tmp_path):
        bars = streams.bars(3, 33)
        other = tmp_path / "bars.dbn"
        other.write_bytes(sent_header("ohlcv-1m") + sent(bars))
        merged = [json.loads(line) for line in replay(live, other, "-J").splitlines()]
        assert len(merged) == 43
        assert all(
            int(record["ts_out"]) - int(record["hd"]["ts_event"]) == LATENCY_NS for record in merged
        )
        assert sorted(times(replay(live, other))) == sorted(int(each["ts_out"]) for each in merged)


def test_mapping_records_that_nobody_sent_have_it_undefined(tmp_path):
    """Two captures name one id differently: the merged one repeats what they say."""
    paths = []
    for name, first in (("A", 0), ("B", 1)):
        orders = streams.mbo(8, 0, 2_000_000)
        orders["instrument_id"], orders["publisher_id"] = 1, 1 + first
        orders["ts_recv"] += np.uint64(first * 1_000_000)
        mapping = np.frombuffer(streams.mapping(1, name), dbn.SymbolMappingMsg._dtypes)
        path = tmp_path / f"{name}.dbn"
        path.write_bytes(sent_header(None) + sent(mapping, orders))
        paths.append(path)
    decoder = dbn.DBNDecoder()
    decoder.write(replay(*paths))
    _, *records = decoder.decode()
    mappings = [record for record in records if isinstance(record, dbn.SymbolMappingMsg)]
    undefined = [mapping for mapping in mappings if mapping.ts_out == UNDEF_TIMESTAMP]
    assert len(mappings) - len(undefined) == 2
    assert len(undefined) >= 8
    assert len(records) - len(mappings) == 16


def test_an_appended_file(live, tmp_path):
    plain = streams.header() + encode_records(streams.mbo(3, 40))
    both = tmp_path / "both.dbn"
    both.write_bytes(live.read_bytes() + plain)
    found = times(replay(both))
    assert found[:40] == [*(streams.mbo(40)["ts_event"] + LATENCY_NS)]
    assert set(found[40:]) == {UNDEF_TIMESTAMP}
    both.write_bytes(plain + live.read_bytes())
    said = f"{both}: left out ts_out of an appended file; the first has none\n"
    decoder = DbnDecoder()
    runs = decoder.feed(replay(both, said=said))
    assert decoder.metadata.ts_out is False
    assert sum(map(len, runs)) == 43


@pytest.mark.parametrize(
    "command", [["aggregate", "--interval", "1s"], ["vwap"], ["book", "--emit", "event"]]
)
def test_what_is_made_of_records_was_never_sent(live, command):
    name, *options = command
    decoder = DbnDecoder()
    ended = completed(name, live, "-D", *options, "-q")
    assert ended.returncode == 0, ended
    decoder.feed(ended.stdout)
    assert decoder.metadata.ts_out is False
    assert decoder.records > 0


def test_python_has_it_as_a_field_and_a_column(live):
    [batch] = mdtool.read(live, schema="trades")
    sent_ns = batch.records["ts_event"] + np.uint64(LATENCY_NS)
    assert batch.records["ts_out"].tolist() == sent_ns.tolist()
    assert batch.to_arrow()["ts_out"].cast("int64").to_pylist() == sent_ns.tolist()
    assert len(mdtool.bars(live, interval="1s")) > 0
