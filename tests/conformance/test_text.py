"""CSV and JSON are what Databento's own encoder makes of the same stream, byte for byte."""

import io

import databento_dbn as dbn
import numpy as np
import pytest
import zstandard

from mdtool.adapters.dbn_files import open_source
from mdtool.adapters.outputs import OutputSpec, open_output
from mdtool.core.batch import Resolver
from mdtool.core.dtypes import SYMBOL_MAPPING
from mdtool.core.instruments import Instruments
from mdtool.wire import text
from mdtool.wire.dbn import encode_records
from mdtool.wire.text import TextEncoder
from tests.reference import dbn_streams as streams
from tests.support.instruments import named

SCHEMAS = ["mbo", "trades", "mbp-1", "mbp-10", "tbbo", "ohlcv-1s", "ohlcv-1m", "definition"]
STYLES = [
    pytest.param(pretty, mapped, id=f"{'pretty' if pretty else 'raw'}-{'s' if mapped else 'ids'}")
    for pretty in (False, True)
    for mapped in (False, True)
]


def theirs(data: bytes, encoding: dbn.Encoding, pretty: bool, mapped: bool, **more) -> bytes:
    written = io.BytesIO()
    transcoder = dbn.Transcoder(
        written,
        encoding,
        dbn.Compression.NONE,
        pretty_px=pretty,
        pretty_ts=pretty,
        map_symbols=mapped,
        **more,
    )
    transcoder.write(data)
    transcoder.flush()
    return written.getvalue()


def ours(path, tmp_path, encoding, pretty, mapped) -> bytes:
    written = tmp_path / f"out.{encoding}"
    spec = OutputSpec(encoding, str(written), maps_symbols=mapped, is_pretty=pretty)
    with open_source(str(path)) as source:
        output = open_output(spec, source.metadata)
        for records in source:
            output.write(records)
        output.close()
    return written.read_bytes()


@pytest.fixture(params=[True, False], ids=["kernel", "databento"])
def _encoder(request, monkeypatch):
    monkeypatch.setattr(text, "uses_kernel", lambda _n_bytes: request.param)


@pytest.mark.usefixtures("_encoder")
@pytest.mark.parametrize(("pretty", "mapped"), STYLES)
@pytest.mark.parametrize("encoding", ["csv", "json"])
class TestFiles:
    @pytest.mark.parametrize("version", [1, 2, 3])
    @pytest.mark.parametrize("schema", SCHEMAS)
    def test_every_schema(self, real_data, tmp_path, schema, version, encoding, pretty, mapped):
        path = real_data / "dbn" / f"test_data.{schema}.v{version}.dbn.zst"
        plain = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()
        wanted = theirs(plain, dbn.Encoding(encoding), pretty, mapped)
        assert ours(path, tmp_path, encoding, pretty, mapped) == wanted

    def test_a_whole_file(self, real_data, tmp_path, encoding, pretty, mapped):
        path = real_data / "CLX5_mbo.dbn"
        wanted = theirs(path.read_bytes(), dbn.Encoding(encoding), pretty, mapped)
        assert ours(path, tmp_path, encoding, pretty, mapped) == wanted

    @pytest.mark.parametrize("n", [0, 1, 40_000])
    def test_streams_without_real_data(self, tmp_path, n, encoding, pretty, mapped):
        path = tmp_path / "f.dbn"
        path.write_bytes(streams.header() + encode_records(streams.mbo(n)))
        wanted = theirs(path.read_bytes(), dbn.Encoding(encoding), pretty, mapped)
        assert ours(path, tmp_path, encoding, pretty, mapped) == wanted

    def test_values_that_are_none(self, tmp_path, encoding, pretty, mapped):
        orders = streams.mbo(3)
        orders["price"][0] = 2**63 - 1
        orders["ts_recv"][1] = 2**64 - 1
        orders["price"][2] = -1
        orders["instrument_id"][2] = 4_000_000_000
        path = tmp_path / "f.dbn"
        path.write_bytes(streams.header() + encode_records(orders))
        wanted = theirs(path.read_bytes(), dbn.Encoding(encoding), pretty, mapped)
        assert ours(path, tmp_path, encoding, pretty, mapped) == wanted


def encoded(encoder: TextEncoder, batch) -> bytes:
    return b"".join(map(bytes, encoder.encode(batch)))


@pytest.mark.parametrize(("pretty", "mapped"), STYLES)
def test_bars_of_any_cadence_come_out_as_bars_of_a_second_do(pretty, mapped):
    metadata = streams.metadata()
    bars, seconds = (named(streams.bars(50, rtype), metadata) for rtype in (17, 32))
    csv = TextEncoder(False, mapped, pretty)
    rows, alike = encoded(csv, bars), encoded(csv, seconds)
    assert [row.split(b",")[1] for row in rows.splitlines()] == [b"17"] * 50
    assert rows.replace(b",17,", b",32,") == alike
    assert csv.header(17) == csv.header(32)
    assert bars.records["rtype"].tolist() == [17] * 50
    lines = encoded(TextEncoder(True, mapped, pretty), bars).splitlines()
    assert all(b'"rtype":17,' in line for line in lines)


@pytest.mark.parametrize("is_json", [True, False])
def test_symbols_are_those_that_hold_where_a_record_stands(is_json):
    resolver = Resolver(Instruments(), "live")
    encoder = TextEncoder(is_json, maps_symbols=True)
    assert encoded(encoder, resolver.batch(streams.mbo(2))).count(b"LIVE") == 0
    live = np.frombuffer(streams.mapping(1, "LIVE"), SYMBOL_MAPPING)
    resolver.learn(live)
    lines = encoded(encoder, resolver.batch(streams.mbo(4))).splitlines()
    assert [b"LIVE" in line for line in lines] == [True, False, True, False]
    assert len(lines) == 4


def test_a_stream_of_several_schemas_as_json(tmp_path):
    path = tmp_path / "f.dbn"
    parts = [streams.mbo(3), streams.bars(2, 17), streams.bars(2, 33), streams.trades(2)]
    path.write_bytes(streams.header(None) + b"".join(map(bytes, map(encode_records, parts))))
    wanted = theirs(path.read_bytes(), dbn.Encoding.JSON, False, False)
    assert ours(path, tmp_path, "json", False, False) == wanted
